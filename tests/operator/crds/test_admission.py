"""What the API server itself says to the manifests that `loam up` is tested with (tests/unit/api)."""

from typing import Any

import pytest
from croniter import croniter

from loam_operator.api.admission import InvalidManifestError, admit

from ...contract.crds.manifests import Manifest, Refused, accepted, merged, refused
from .conftest import Api

pytestmark = pytest.mark.kubernetes

GOOD = accepted()
BAD = refused()


@pytest.mark.parametrize("manifest", GOOD.values(), ids=GOOD)
async def test_a_good_manifest_is_admitted_with_the_defaults_of_loam_up(api: Api, manifest: Manifest) -> None:
    status, answer = await api.create(manifest, dry_run=True)
    assert status == 201, answer.get("message")
    assert _said(_with_text(answer["spec"])) == _said(admit(manifest).spec.to_manifest())


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
async def test_a_bad_manifest_is_refused_in_the_words_of_loam_up(api: Api, case: Refused) -> None:
    status, answer = await api.create(case.manifest, dry_run=True)
    assert status in (400, 422), answer
    assert case.says in answer["message"]
    assert case.field in answer["message"]


_TRICKY = {
    "spec.budget.monthlyUsd": (
        "0",
        "00.5",
        ".5",
        "5.",
        "1e3",
        "+1",
        "0.25\n",
        " 1",
        "٣",
        "999999999.999999999",
        "1,5",
        "",
    ),
    "spec.network.egress.cidr": (
        *("10.0.0.0/8", "10.0.0.0/08", "10.0.0.0/255.0.0.0", "10.0.0.0/33", "010.0.0.0/8", "10.0.0.0", "0.0.0.0/0"),
        *("::/0", "2001:db8::/32", "2001:db8::1/32", "fe80::%1/64", "::ffff:10.0.0.0/104", "10.0.0.0/8\n", "/8"),
    ),
    "spec.quota.pods": ("5", "1.5", ".5", "1e3", "5Gi", "5gi", "5 Gi", "-5", "+5", "5\n", "0.1m", 7, 0, -7),
    "spec.budget.alerts.email": (
        *("a@b", "a@b.c", "a@b.", "a@@b", "a b@c", "a\u00a0b@c", "a@b\n", "@b", "ä@b.example", "a,b@c", "<a@b>"),
        *(
            "o'brien+x@b.example",
            "a`b@c",
            'a"b@c',
            "a\\b@c",
            "a..b@c",
            ".a@b",
            "a.@b",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a@[::1]",
        ),
    ),
    "spec.owner": ("ana", "", "a" * 253, "a" * 254, "ä" * 253),
    "spec.network.services.host": ("a", "a.b", "a..b", "-a", "a-", "A", "127.0.0.1", "a:80", "::1", "a.svc.", "a\n"),
}
_PLACES = {
    "spec.budget.monthlyUsd": lambda value: {"budget": {"monthlyUsd": value}},
    "spec.network.egress.cidr": lambda value: {"network": {"egress": [{"cidr": value, "ports": [1]}]}},
    "spec.quota.pods": lambda value: {"quota": {"pods": value}},
    "spec.budget.alerts.email": lambda value: {"budget": {"alerts": {"emails": [value]}}},
    "spec.owner": lambda value: {"owners": [{"kind": "User", "name": value}]},
    "spec.network.services.host": lambda value: {"network": {"services": [{"host": value, "ports": [1]}]}},
}
_SCHEDULES = (
    *("* * * * *", "*/15 * * * *", "*/0 * * * *", "0 24 * * *", "0 23 31 12 7", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8"),
    *("1,2,3-9/2 * * * *", "1, 2 * * * *", "* * * * * *", "* * * *", "0 0 1 JAN Mon-FRI", "0 0 * * monday"),
    *("@daily", "@Daily", "@every 1h", "@reboot", "5 4 * * *\n", "05 04 * * *", "*-5 * * * *", "0 0 ? * *"),
)


async def _both_verdicts(api: Api, manifest: Manifest) -> tuple[bool, bool]:
    status, _ = await api.create(manifest, dry_run=True)
    try:
        admit(manifest)
    except InvalidManifestError:
        return status == 201, False
    return status == 201, True


@pytest.mark.parametrize("place", _TRICKY)
async def test_both_judge_tricky_values_alike(api: Api, place: str) -> None:
    verdicts = {}
    for value in _TRICKY[place]:
        manifest = {**GOOD["Tenant/bare"], "spec": _PLACES[place](value)}
        verdicts[value] = await _both_verdicts(api, manifest)
    assert {value: both for value, both in verdicts.items() if both[0] != both[1]} == {}
    assert {both[0] for both in verdicts.values()} == {True, False}


async def test_both_judge_schedules_alike_and_what_they_admit_can_be_run(api: Api) -> None:
    for schedule in _SCHEDULES:
        manifest = merged(GOOD["RagPipeline/notes"], {"spec": {"sync": {"schedule": schedule}}})
        server, python = await _both_verdicts(api, manifest)
        assert server == python, schedule
        assert croniter.is_valid(schedule) or not python, schedule


async def test_both_name_every_mistake_of_a_manifest(api: Api) -> None:
    patch = {"spec": {"budget": {"monthlyUsd": "-5"}, "models": ["Ü"], "quota": {"pods": -1}}}
    manifest = merged(GOOD["Tenant/acme"], patch)
    _, answer = await api.create(manifest, dry_run=True)
    with pytest.raises(InvalidManifestError) as refusal:
        admit(manifest)
    assert len(refusal.value.problems) == len(answer["details"]["causes"]) == 3
    for problem in refusal.value.problems:
        assert str(problem) in answer["message"]


@pytest.mark.parametrize("patch", [{"user": "another"}, {"user": None}, {"secretName": "another"}])
async def test_what_must_not_change_is_refused_when_it_does(api: Api, patch: Manifest) -> None:
    manifest = merged(GOOD["ApiKey/backend"], {"metadata": {"name": "unchanging"}})
    await api.create(manifest)
    status, answer = await api.patch(manifest, {"spec": patch})
    with pytest.raises(InvalidManifestError) as refusal:
        admit(merged(manifest, {"spec": patch}), previous=admit(manifest))
    assert status == 422
    assert all(str(problem) in answer["message"] for problem in refusal.value.problems)


async def test_what_may_change_does(api: Api) -> None:
    manifest = merged(GOOD["ApiKey/backend"], {"metadata": {"name": "changing"}})
    await api.create(manifest)
    status, answer = await api.patch(manifest, {"spec": {"budget": {"monthlyUsd": "70"}}})
    assert (status, answer["spec"]["budget"]["monthlyUsd"]) == (200, "70")


def _with_text(spec: Manifest) -> Manifest:
    """Quantities given as numbers, as text: the API server keeps what was written, Python has one form."""
    for resources in (spec.get("quota"), *spec.get("serving", {}).get("resources", {}).values()):
        if resources:
            resources |= {name: str(amount) for name, amount in resources.items()}
    return spec


def _said(value: Any) -> Any:
    """Without empty lists, maps and texts: to leave one out says the same."""
    if isinstance(value, dict):
        children = {key: _said(child) for key, child in value.items()}
        return {key: child for key, child in children.items() if child not in ({}, [], "")}
    return [_said(child) for child in value] if isinstance(value, list) else value
