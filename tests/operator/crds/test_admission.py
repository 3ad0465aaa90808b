"""What the API server itself says to the manifests that `loam up` is tested with (tests/unit/api)."""

from typing import Any

import pytest

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
