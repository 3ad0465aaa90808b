"""The good manifests of accepted.yaml, and the bad ones of refused.yaml made from them."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Manifest = dict[str, Any]
_FOLDER = Path(__file__).parent


class Refused(NamedTuple):
    """A bad manifest, the field that is wrong and what is said about it."""

    manifest: Manifest
    field: str
    says: str


def accepted() -> dict[str, Manifest]:
    """By kind and name."""
    manifests = [manifest for manifest in yaml.safe_load_all((_FOLDER / "accepted.yaml").read_text()) if manifest]
    return {f"{manifest['kind']}/{manifest['metadata']['name']}": manifest for manifest in manifests}


def refused() -> dict[str, Refused]:
    """By what is wrong."""
    good = accepted()
    cases = yaml.safe_load((_FOLDER / "refused.yaml").read_text())
    return {
        case["case"]: Refused(merged(good[case["of"]], case["patch"]), case["field"], case["says"]) for case in cases
    }


def merged(manifest: Manifest, patch: Manifest) -> Manifest:
    """The manifest after a JSON merge patch."""
    result = copy.deepcopy(manifest)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
