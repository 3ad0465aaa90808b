"""Whether applying a manifest would change the live object, told from the live object alone.

The API server keeps, for every field, who set it. A foreign edit of a field that we applied takes the field away from
us, so the live object is what we would write exactly when we still own every field of the manifest, own none besides,
and the values are the same.
"""

import json
from typing import Any

from loam_operator.cluster import FIELD_MANAGER, Manifest

_QUANTITIES = {"requests", "limits", "hard", "default", "defaultRequest", "min", "max"}
_SUFFIXES = {"m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_IMPLIED = {"apiVersion", "kind"}
_IMPLIED_METADATA = {"name", "namespace", "resourceVersion"}


def is_applied(live: Manifest, desired: Manifest) -> bool:
    """True when applying `desired` over `live` would write nothing."""
    owned = _owned(live)
    if owned is None:
        return False
    wanted = {name: value for name, value in desired.items() if name not in _IMPLIED}
    metadata = {name: value for name, value in desired["metadata"].items() if name not in _IMPLIED_METADATA}
    wanted.pop("metadata")
    if metadata:
        wanted["metadata"] = metadata
    return _holds(owned, live, wanted, quantity=False)


def _owned(live: Manifest) -> dict[str, Any] | None:
    entry: dict[str, Any]
    for entry in live["metadata"].get("managedFields", ()):
        if entry["manager"] == FIELD_MANAGER and entry["operation"] == "Apply" and not entry.get("subresource"):
            fields: dict[str, Any] = entry["fieldsV1"]
            return fields
    return None


def _holds(owned: dict[str, Any], live: Any, wanted: Any, *, quantity: bool) -> bool:
    """Whether the fields `owned` at this place are those of `wanted`, with the same values in `live`."""
    children = {name: below for name, below in owned.items() if name != "."}
    if not children:
        return _same(live, wanted, quantity=quantity)
    if isinstance(wanted, dict) and isinstance(live, dict):
        return _holds_fields(children, live, wanted, quantity=quantity)
    if isinstance(wanted, list) and isinstance(live, list):
        return _holds_items(children, live, wanted)
    return False


def _holds_fields(owned: dict[str, Any], live: dict[str, Any], wanted: dict[str, Any], *, quantity: bool) -> bool:
    if owned.keys() != {f"f:{name}" for name in wanted}:
        return False
    return all(
        name in live and _holds(owned[f"f:{name}"], live[name], value, quantity=quantity or name in _QUANTITIES)
        for name, value in wanted.items()
    )


def _holds_items(owned: dict[str, Any], live: list[Any], wanted: list[Any]) -> bool:
    if len(owned) != len(wanted):
        return False
    for path, below in owned.items():
        mark, _, text = path.partition(":")
        key = json.loads(text)
        if mark == "v":
            if key not in wanted or key not in live:
                return False
            continue
        mine, theirs = _find(wanted, key), _find(live, key)
        if mine is None or theirs is None or not _holds(below, theirs, mine, quantity=False):
            return False
    return True


def _find(items: list[dict[str, Any]], key: dict[str, Any]) -> dict[str, Any] | None:
    # A key that the manifest leaves to its default (a port's protocol) is in the path all the same.
    for item in items:
        if any(name in item for name in key) and all(item.get(name, value) == value for name, value in key.items()):
            return dict(key) | item
    return None


def _same(live: Any, wanted: Any, *, quantity: bool) -> bool:
    """Whether `live` says what is `wanted`; the API server may have added defaults."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            name in live and _same(live[name], value, quantity=quantity or name in _QUANTITIES)
            for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_same(one, other, quantity=quantity) for one, other in zip(live, wanted, strict=True))
        )
    return bool(live == wanted or (quantity and _amount(live) == _amount(wanted)))


def _amount(text: Any) -> float:
    number = str(text)
    if number.endswith("i"):
        return float(number[:-2]) * 1024.0 ** (1 + "KMGTPE".index(number[-2]))
    suffix = number[-1] if number[-1] in _SUFFIXES else ""
    return float(number.removesuffix(suffix)) * 10.0 ** _SUFFIXES[suffix]
