"""Which templates a tenant has, whatever lies in its ConfigMaps."""

from typing import Any

import pytest

from loam_operator.decide import templates as decide
from loam_operator.decide.templates import Found

GREET = "name: greet\nversion: {version}\nmessages: [{{role: user, content: hello}}]"


def read(**config_maps: dict[str, str] | None) -> Found:
    manifests: list[dict[str, Any]] = [
        {"metadata": {"name": name}} | ({} if data is None else {"data": data}) for name, data in config_maps.items()
    ]
    return decide.found_in(manifests)


def labels(found: Found) -> list[str]:
    return [template.label for template in found.good]


def test_good_templates_serve_beside_bad_ones_and_the_first_fault_is_named() -> None:
    found = read(b={"x": GREET.format(version=2), "y": "name: ["}, a={"z": GREET.format(version=1), "w": ""}, c=None)
    assert labels(found) == ["greet@1", "greet@2"]
    assert (found.fact.status, found.fact.reason) == ("False", "TemplateInvalid")
    assert found.fact.message.startswith('ConfigMap "a", key "w": ')
    assert found.fact.message.endswith("(and 1 more)")


def test_of_two_with_one_label_the_first_by_name_serves() -> None:
    found = read(b={"x": GREET.format(version=1)}, a={"z": GREET.format(version=1)})
    assert labels(found) == ["greet@1"]
    assert found.faults == ('ConfigMap "b", key "x": greet@1 is already in ConfigMap "a", key "z"',)


@pytest.mark.parametrize("limit", ["MOST_TEMPLATES", "MOST_CHARACTERS"])
def test_what_is_too_much_for_the_gateway_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    file = GREET.format(version=1)
    monkeypatch.setattr(decide, limit, 2 if limit == "MOST_TEMPLATES" else 2 * len(file))
    found = read(a={str(version): GREET.format(version=version) for version in range(1, 4)})
    assert labels(found) == ["greet@1", "greet@2"]
    assert "and this is more" in found.fact.message


def test_no_templates_are_no_fault() -> None:
    assert (read().fact.status, read().fact.message) == ("True", "")
