"""Whether an apply would write, told from the live object alone."""

import copy

import pytest

from loam_operator.adapters.managed_fields import is_applied

DESIRED = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "s", "namespace": "n", "labels": {"a": "b"}},
    "spec": {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]},
}
LIVE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "s",
        "namespace": "n",
        "uid": "u",
        "labels": {"a": "b", "foreign": "label"},
        "managedFields": [
            {
                "manager": "loam",
                "operation": "Apply",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:a": {}}},
                    "f:spec": {
                        "f:selector": {},
                        "f:ports": {
                            'k:{"port":80,"protocol":"TCP"}': {
                                ".": {},
                                "f:port": {},
                                "f:protocol": {},
                                "f:targetPort": {},
                            }
                        },
                    },
                },
            }
        ],
    },
    "spec": {
        "clusterIP": "10.0.0.1",
        "selector": {"app": "x"},
        "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}],
    },
}


def test_what_is_as_it_was_applied_needs_no_write_whatever_else_is_in_it() -> None:
    assert is_applied(LIVE, DESIRED)


def changed(where: str, value: object, of: dict) -> dict:
    copied = copy.deepcopy(of)
    *path, last = where.split("/")
    place = copied
    for name in path:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copied


FIELDS = "metadata/managedFields/0/fieldsV1"


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("metadata/managedFields", []),
        (f"{FIELDS}/f:metadata", None),
        (f"{FIELDS}/f:spec/f:selector", None),
        (f"{FIELDS}/f:spec/f:more", {}),
        ("spec/selector", {"app": "y"}),
        ("spec/ports/0/targetPort", "other"),
        ("spec/ports", []),
    ],
)
def test_an_edit_or_a_field_taken_over_needs_a_write(where: str, value: object) -> None:
    assert not is_applied(changed(where, value, LIVE), DESIRED)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("spec/selector", {"app": "y"}),
        ("spec/type", "NodePort"),
        ("metadata/labels", {"a": "b", "c": "d"}),
        ("metadata/annotations", {"c": "d"}),
        ("metadata/labels", None),
    ],
)
def test_a_new_wish_or_one_that_is_dropped_needs_a_write(where: str, value: object) -> None:
    assert not is_applied(LIVE, changed(where, value, DESIRED))


@pytest.mark.parametrize(("live", "wanted"), [("500m", "0.5"), ("1Gi", "1024Mi"), ("2", "2000m"), ("1k", "1000")])
def test_quantities_are_compared_by_amount(live: str, wanted: str) -> None:
    fields = {"f:spec": {"f:hard": {"f:cpu": {}}}}
    managed = [{"manager": "loam", "operation": "Apply", "fieldsV1": fields}]
    stored = {"metadata": {"managedFields": managed}, "spec": {"hard": {"cpu": live}}}
    desired = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"cpu": wanted}},
    }
    assert is_applied(stored, desired)
