"""`loam up` refuses what the API server would refuse, in the same words; tests/operator/crds asks the server itself."""

import pytest

from loam_operator.api.admission import InvalidManifestError, admit
from loam_operator.api.v1alpha1 import ApiKey, RagPipeline, Tenant

from ...contract.crds.manifests import Manifest, Refused, accepted, merged, refused

GOOD = accepted()
BAD = refused()


@pytest.mark.parametrize("manifest", GOOD.values(), ids=GOOD)
def test_a_good_manifest_is_admitted(manifest: Manifest) -> None:
    assert admit(manifest).metadata.name == manifest["metadata"]["name"]


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_manifest_is_refused_at_the_field_with_the_mend(case: Refused) -> None:
    with pytest.raises(InvalidManifestError) as refusal:
        admit(case.manifest)
    assert [(problem.field, problem.sentence) for problem in refusal.value.problems] == [(case.field, case.says)]


def test_a_refusal_reads_like_the_api_servers() -> None:
    with pytest.raises(InvalidManifestError) as refusal:
        admit(BAD["a negative budget"].manifest)
    assert str(refusal.value) == (
        'Tenant.loam.dev "acme" is invalid: spec.budget.monthlyUsd: Invalid value: "-5": must be an amount in USD '
        'of at least 0, written as a decimal string such as "0.25"'
    )


def test_every_mistake_of_a_manifest_is_named_at_once() -> None:
    patch = {"spec": {"budget": {"monthlyUsd": "-5"}, "suspended": 1, "colour": "red"}}
    with pytest.raises(InvalidManifestError) as refusal:
        admit(merged(GOOD["Tenant/acme"], patch))
    assert [problem.field for problem in refusal.value.problems] == [
        "spec.budget.monthlyUsd",
        "spec.suspended",
        "spec.colour",
    ]


def test_a_field_in_pythons_spelling_is_unknown() -> None:
    with pytest.raises(InvalidManifestError, match=r'unknown field "spec\.display_name"'):
        admit(merged(GOOD["Tenant/bare"], {"spec": {"display_name": "Acme"}}))


def test_a_null_counts_as_left_out() -> None:
    tenant = admit({**GOOD["Tenant/bare"], "spec": {"displayName": None, "storage": None}})
    assert isinstance(tenant, Tenant)
    assert tenant.spec.storage.deletion_policy == "Retain"


@pytest.mark.parametrize(("api_version", "kind"), [("loam.dev/v1alpha1", "Tennant"), ("loam.dev/v2", "Tenant")])
def test_an_unknown_kind_is_told_which_there_are(api_version: str, kind: str) -> None:
    with pytest.raises(InvalidManifestError, match="Loam's kinds are ModelRoute, Tenant, ApiKey"):
        admit({"apiVersion": api_version, "kind": kind, "metadata": {"name": "acme"}, "spec": {}})


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        ({"spec": {"user": "another"}}, "spec.user: Invalid value: must not change, because past spend"),
        ({"spec": {"user": None}}, "spec.user: Invalid value: must not change, because past spend"),
        ({"spec": {"secretName": "another"}}, "spec.secretName: Invalid value: must not change, because pods use"),
    ],
)
def test_what_must_not_change_is_refused_when_it_does(patch: Manifest, sentence: str) -> None:
    before = GOOD["ApiKey/backend"]
    after = merged(before, patch)
    assert admit(after)
    with pytest.raises(InvalidManifestError, match=sentence):
        admit(after, previous=admit(before))


def test_what_may_change_is_admitted() -> None:
    before = admit(GOOD["ApiKey/backend"])
    after = admit(merged(GOOD["ApiKey/backend"], {"spec": {"budget": {"monthlyUsd": "70"}}}), previous=before)
    assert isinstance(after, ApiKey)
    assert after.spec.budget.monthly_usd == "70"


def test_defaults_are_safe() -> None:
    tenant, pipeline = admit(GOOD["Tenant/bare"]), admit(GOOD["RagPipeline/notes"])
    assert isinstance(tenant, Tenant)
    assert isinstance(pipeline, RagPipeline)
    assert (tenant.spec.models, tenant.spec.network.egress, tenant.spec.storage.deletion_policy) == ([], [], "Retain")
    assert pipeline.spec.serving.mode == "Dedicated"
    assert not pipeline.spec.retrieval.query_expansion.enabled


def test_an_object_of_a_newer_api_is_still_read() -> None:
    stored = merged(GOOD["Tenant/acme"], {"spec": {"added": 1}, "status": {"addedToo": 2}})
    assert Tenant.read(stored).spec.display_name == "Acme Corp"


def test_a_quantity_given_as_a_number_is_read_as_text() -> None:
    tenant = admit(GOOD["Tenant/acme"])
    assert isinstance(tenant, Tenant)
    assert tenant.spec.quota["pods"] == "50"


def test_an_object_goes_back_into_the_manifest_it_came_from() -> None:
    for manifest in GOOD.values():
        resource = admit(manifest)
        assert admit(resource.to_manifest()) == resource
