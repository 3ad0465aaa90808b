"""What cannot be served is answered with a reason, and nothing is half-applied."""

import base64

import pytest

from loam_operator.cluster import Ref

from ._kube import Kube, ours, until

pytestmark = pytest.mark.kubernetes

API = "loam.dev/v1alpha1"


def tenant(name: str, **spec: object) -> dict:
    return {"apiVersion": API, "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


def namespace(name: str, **labels: str) -> dict:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def model(name: str, **spec: object) -> dict:
    common = {"provider": "Bedrock", "modelId": "m", "regions": ["us-east-1"]}
    return {"apiVersion": API, "kind": "ModelRoute", "metadata": {"name": name}, "spec": common | spec}


def chat(name: str, **spec: object) -> dict:
    price = {"inputPerMillion": "1", "outputPerMillion": "1"}
    return model(name, **{"capabilities": ["Chat"], "maxOutputTokens": 10, "price": price} | spec)


def embedder(name: str) -> dict:
    return model(name, capabilities=["Embed"], dimensions=256, price={"inputPerMillion": "1"})


def pipeline(where: str, **spec: object) -> dict:
    whole = {
        "sources": [{"uploads": {}}],
        "embedding": {"model": "bad-embed", "dimensions": 256},
        "generation": {"model": "bad-chat"},
    }
    return {
        "apiVersion": API,
        "kind": "RagPipeline",
        "metadata": {"name": "p", "namespace": where},
        "spec": whole | spec,
    }


async def says(kube: Kube, ref: Ref, reason: str) -> str:
    """The message of Ready, once it says False for this reason."""

    async def said() -> bool:
        return await kube.condition(ref) == ("False", reason)

    await until(said, f"{ref} says {reason}")
    conditions = (await kube.get(ref))["status"]["conditions"]
    return next(held["message"] for held in conditions if held["type"] == "Ready")


@pytest.fixture(scope="module")
async def bad(admin: Kube, operator) -> Kube:
    """A tenant with the models that its pipelines need, to try things with."""
    await admin.apply(chat("bad-chat"), embedder("bad-embed"), tenant("bad", models=["bad-chat", "bad-embed"]))

    async def has_storage() -> bool:
        return await admin.get(Ref("v1", "Secret", "loam-storage", "bad")) is not None

    await until(has_storage, "the tenant has its storage")
    yield admin
    await admin.delete(ours("Tenant", "bad"))


async def test_an_unpriced_model_is_known_but_not_ready(bad: Kube) -> None:
    await bad.apply(model("unpriced", capabilities=["Chat"], maxOutputTokens=10))
    assert "spec.price" in await says(bad, ours("ModelRoute", "unpriced"), "NoPrice")
    await bad.delete(ours("ModelRoute", "unpriced"))


async def test_fallbacks_that_are_missing_or_run_in_a_circle_are_named(bad: Kube) -> None:
    await bad.apply(chat("first", fallbacks=["second"]))
    assert '"second"' in await says(bad, ours("ModelRoute", "first"), "FallbackMissing")
    await bad.apply(chat("second", fallbacks=["first"]))
    assert "first → second → first" in await says(bad, ours("ModelRoute", "first"), "FallbackCycle")
    for name in ("first", "second"):
        await bad.delete(ours("ModelRoute", name))


async def test_a_missing_provider_secret_is_named_and_its_arrival_noticed(bad: Kube) -> None:
    route = chat("by-key", provider="Anthropic", credentialsSecretRef={"name": "anthropic", "key": "token"})
    del route["spec"]["regions"]
    await bad.apply(route)
    assert '"anthropic"' in await says(bad, ours("ModelRoute", "by-key"), "SecretMissing")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "anthropic", "namespace": "loam-system"}}
    await bad.apply(secret | {"data": {"token": base64.b64encode(b"sk").decode()}})

    async def is_served() -> bool:
        found = await bad.condition(ours("ModelRoute", "by-key"), "CredentialFound")
        served = await bad.condition(ours("ModelRoute", "by-key"), "Ready")
        return found == ("True", "Found") and served is not None and served[0] == "True"

    await until(is_served, "the Secret is found and the route served")
    await bad.delete(ours("ModelRoute", "by-key"))


async def test_an_unknown_model_of_a_tenant_is_named_while_the_rest_is_served(bad: Kube) -> None:
    await bad.edit(ours("Tenant", "bad"), {"spec": {"models": ["bad-chat", "bad-embed", "no-such"]}})
    assert '"no-such"' in await says(bad, ours("Tenant", "bad"), "ModelMissing")
    assert await bad.condition(ours("Tenant", "bad"), "NamespaceReady") == ("True", "Created")
    await bad.edit(ours("Tenant", "bad"), {"spec": {"models": ["bad-chat", "bad-embed"]}})


async def test_a_namespace_that_nobody_handed_over_is_not_taken(bad: Kube) -> None:
    await bad.apply(namespace("taken"), tenant("taken"))
    message = await says(bad, ours("Tenant", "taken"), "NamespaceNotOurs")
    assert "loam.dev/tenant=taken" in message
    assert await bad.list("NetworkPolicy", "taken") == []
    await bad.apply(namespace("taken", **{"loam.dev/tenant": "taken"}))

    async def is_adopted() -> bool:
        return await bad.condition(ours("Tenant", "taken"), "NamespaceReady") == ("True", "Adopted")

    await until(is_adopted, "the namespace is adopted once it is labelled")
    await bad.delete(ours("Tenant", "taken"))


async def test_a_namespace_labelled_for_another_tenant_is_not_taken(bad: Kube) -> None:
    await bad.apply(namespace("wanted", **{"loam.dev/tenant": "bad"}), tenant("wanted"))
    await says(bad, ours("Tenant", "wanted"), "NamespaceOwnedByOther")
    await bad.delete(ours("Tenant", "wanted"))


async def test_keys_and_pipelines_in_a_namespace_of_no_tenant_make_nothing(bad: Kube) -> None:
    await bad.apply(namespace("nobodys"), pipeline("nobodys"))
    key = {"scopes": ["ai:embed"], "secretName": "k"}
    await bad.apply(
        {"apiVersion": API, "kind": "ApiKey", "metadata": {"name": "k", "namespace": "nobodys"}, "spec": key}
    )
    assert "no tenant" in await says(bad, ours("ApiKey", "k", "nobodys"), "NoTenant")
    assert "no tenant" in await says(bad, ours("RagPipeline", "p", "nobodys"), "NoTenant")
    assert await bad.list("Secret", "nobodys") == []
    assert await bad.list("Deployment", "nobodys") == []


async def test_a_secret_of_somebody_else_is_never_overwritten(bad: Kube) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "bad"}}
    await bad.apply(secret | {"data": {"key": base64.b64encode(b"precious").decode()}})
    key = {"scopes": ["ai:embed"], "secretName": "mine"}
    await bad.apply({"apiVersion": API, "kind": "ApiKey", "metadata": {"name": "k", "namespace": "bad"}, "spec": key})
    await says(bad, ours("ApiKey", "k", "bad"), "SecretNotOwned")
    live = await bad.get(Ref("v1", "Secret", "mine", "bad"))
    assert base64.b64decode(live["data"]["key"]) == b"precious"
    await bad.delete(ours("ApiKey", "k", "bad"))
    await until(lambda: is_gone(bad, ours("ApiKey", "k", "bad")), "the ApiKey is gone")
    assert await bad.get(Ref("v1", "Secret", "mine", "bad")) is not None


async def is_gone(kube: Kube, ref: Ref) -> bool:
    return await kube.get(ref) is None


@pytest.mark.parametrize(
    ("spec", "reason", "hint"),
    [
        ({"generation": {"model": "no-such"}}, "ModelMissing", "no-such"),
        ({"embedding": {"model": "bad-chat", "dimensions": 256}}, "ModelCannotEmbed", "Embed"),
        ({"embedding": {"model": "bad-embed", "dimensions": 999}}, "DimensionsMismatch", "256"),
        ({"generation": {"model": "bad-embed"}}, "ModelCannotChat", "Chat"),
        ({"sources": [{"configMap": {"name": "no-such"}}]}, "ConfigMapMissing", "no-such"),
        ({"sources": [{"s3": {"bucket": "other-docs"}}]}, "BucketNotAllowed", "other-docs"),
    ],
)
async def test_a_pipeline_that_cannot_be_served_says_why_and_makes_nothing(
    bad: Kube, spec: dict, reason: str, hint: str
) -> None:
    await bad.apply(pipeline("bad", **spec))
    assert hint in await says(bad, ours("RagPipeline", "p", "bad"), reason)
    assert await bad.list("Deployment", "bad") == []


async def test_a_pipeline_is_made_once_what_it_lacked_is_there(bad: Kube) -> None:
    await bad.apply(pipeline("bad", sources=[{"configMap": {"name": "late"}}]))
    await says(bad, ours("RagPipeline", "p", "bad"), "ConfigMapMissing")
    late = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "bad"}}
    await bad.apply(late | {"data": {"a.md": "text"}})
    await says(bad, ours("RagPipeline", "p", "bad"), "PodsStarting")
    assert len(await bad.list("Deployment", "bad")) == 2
