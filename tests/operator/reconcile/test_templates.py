"""Prompt templates in ConfigMaps: what is labelled is served, what is broken is named, what goes is gone."""

import asyncio
import base64
import urllib.request
from collections.abc import AsyncIterator

import orjson
import pytest

from loam_operator.cluster import Ref

from ._gateway import Gateway
from ._kube import Kube, Manifest, ours, until
from .test_bad_input import namespace, tenant

pytestmark = pytest.mark.kubernetes

GREET = """
name: greet
version: 1
variables: {properties: {who: {type: string}}, required: [who]}
messages: [{role: user, content: "Hello {{ who }}."}]
"""
SECOND = GREET.replace("version: 1", "version: 2")
BROKEN = GREET.replace("{{ who }}", "{{ whom }}")


def config_map(name: str, labelled: bool = True, **files: str) -> Manifest:
    labels = {"loam.dev/prompt-template": "true"} if labelled else {}
    metadata = {"name": name, "namespace": "templated", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files}


async def condition(kube: Kube) -> dict[str, str]:
    """The Tenant's condition TemplatesReady."""
    live = await kube.get(ours("Tenant", "templated"))
    held = (live or {}).get("status", {}).get("conditions", [])
    return next((found for found in held if found["type"] == "TemplatesReady"), {})


async def until_it_says(kube: Kube, status: str, message: str) -> None:
    async def said() -> bool:
        now = await condition(kube)
        return (now.get("status"), now.get("message")) == (status, message)

    try:
        await until(said, "the condition")
    except AssertionError:
        raise AssertionError(f"{await condition(kube)} instead of {message}") from None


@pytest.fixture(scope="module")
async def key(admin: Kube, operator) -> AsyncIterator[str]:
    """A key of a tenant that is ready."""
    await admin.apply(namespace("templated", **{"loam.dev/tenant": "templated"}), tenant("templated"))
    api_key = {"scopes": ["ai:complete"], "secretName": "key"}
    metadata = {"name": "caller", "namespace": "templated"}
    await admin.apply({"apiVersion": "loam.dev/v1alpha1", "kind": "ApiKey", "metadata": metadata, "spec": api_key})

    async def is_ready() -> bool:
        return await admin.condition(ours("ApiKey", "caller", "templated")) == ("True", "Ready")

    await until(is_ready, "the key is ready", 60)
    secret = await admin.get(Ref("v1", "Secret", "key", "templated"))
    yield base64.b64decode(secret["data"]["key"]).decode()
    await admin.delete(ours("Tenant", "templated"))


async def served(gateway: Gateway, key: str) -> list[str]:
    """The labels of the tenant's own templates, as a caller sees them."""
    request = urllib.request.Request(f"{gateway.public}/v1/templates", headers={"Authorization": f"Bearer {key}"})

    def get() -> bytes:
        with urllib.request.urlopen(request, timeout=10) as response:
            content: bytes = response.read()
            return content

    found = orjson.loads(await asyncio.to_thread(get))["templates"]
    return [f"{template['name']}@{template['version']}" for template in found if template["owner"] == "tenant"]


async def test_labelled_config_maps_are_served_and_go_when_they_go(admin: Kube, gateway: Gateway, key: str) -> None:
    await admin.apply(config_map("prompts", **{"greet.yaml": GREET, "newer": SECOND}))
    await admin.apply(config_map("unlabelled", labelled=False, greet=GREET.replace("greet", "hidden")))
    await until_it_says(admin, "True", "greet@1, greet@2")
    assert await served(gateway, key) == ["greet@1", "greet@2"]

    await admin.apply(config_map("prompts", newer=SECOND))
    await until_it_says(admin, "True", "greet@2")
    assert await served(gateway, key) == ["greet@2"]

    await admin.delete(Ref("v1", "ConfigMap", "prompts", "templated"))
    await until_it_says(admin, "True", "")
    assert await served(gateway, key) == []


async def test_a_broken_template_is_named_while_the_good_ones_serve(admin: Kube, gateway: Gateway, key: str) -> None:
    await admin.apply(config_map("mixed", good=GREET, typo=BROKEN, wrong="name: [", again=SECOND))
    await until_it_says(
        admin,
        "False",
        'ConfigMap "mixed", key "typo": the variable "whom" is used in messages, but not declared in '
        "variables.properties (and 1 more)",
    )
    assert await served(gateway, key) == ["greet@1", "greet@2"]
    assert await admin.condition(ours("Tenant", "templated")) == ("True", "Ready")

    await admin.apply(config_map("mixed", good=GREET, wrong=GREET))
    await until_it_says(
        admin, "False", 'ConfigMap "mixed", key "wrong": greet@1 is already in ConfigMap "mixed", key "good"'
    )
    assert await served(gateway, key) == ["greet@1"]
    await admin.delete(Ref("v1", "ConfigMap", "mixed", "templated"))
    await until_it_says(admin, "True", "")
