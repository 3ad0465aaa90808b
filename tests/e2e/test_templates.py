"""Prompt templates on one machine, by the manifest of the guide."""

import json
import urllib.request
from pathlib import Path

import pytest

from .conftest import ROOT, Up, until

pytestmark = pytest.mark.platform

GUIDE = (ROOT / "docs" / "guides" / "templates-and-cache.md").read_text()
MANIFEST = next(block for block in GUIDE.split("```yaml\n")[1:] if "kind: ConfigMap" in block).partition("```")[0]


def own(platform: Up) -> list[str]:
    """The templates that the tenant has of its own."""
    found = platform.get("/v1/templates")["templates"]
    return [f"{template['name']}@{template['version']}" for template in found if template["owner"] == "tenant"]


def test_a_labelled_config_map_is_served_named_when_it_breaks_and_gone_with_itself(
    platform: Up, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(MANIFEST)
    assert platform.loam("apply", "-f", str(file)).code == 0
    until(lambda: own(platform) == ["release-notes@1"], 20, "the template is served")

    body = {"template": "release-notes", "variables": {"changes": "Templates have versions."}}
    headers = {"authorization": f"Bearer {platform.key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{platform.known['url']}/v1/complete", json.dumps(body).encode(), headers)
    cached = []
    for _ in range(2):
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.headers["x-loam-template"] == "release-notes@1"
            cached.append(json.load(response)["cached"])
    assert cached == [False, True]

    file.write_text(MANIFEST.replace("{{ changes }}", "{{ chnages }}"))
    assert platform.loam("apply", "-f", str(file)).code == 0
    until(lambda: own(platform) == [], 20, "the broken template is served no more")
    until(lambda: '"chnages" is used in messages' in platform.loam("doctor").out, 20, "doctor names what is wrong")

    assert platform.loam("delete", "-f", str(file)).code == 0
    until(lambda: "chnages" not in platform.loam("doctor").out, 20, "nothing is wrong any more")
