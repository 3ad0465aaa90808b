"""Prompt templates: the platform's, a tenant's own, and what becomes of a call that names one."""

import asyncio
import copy
import gc
import os
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from loam_gateway.adapters import postgres
from loam_gateway.directory import cache as directory
from loam_gateway.templates import room as templates
from loam_gateway.vault import Vault

from ._platform import TestTenant

GREET: dict[str, Any] = {
    "name": "greet",
    "version": 1,
    "variables": {"properties": {"who": {"type": "string", "maxLength": 20}}, "required": ["who"]},
    "messages": [{"role": "user", "content": "Say hello to {{ who }}, and to nobody else."}],
    "cacheSeconds": 0,
}


def put(tenant: TestTenant, *templates: dict[str, Any], uid: str = "") -> Any:
    return tenant.gateway.put(
        f"/tenants/{tenant.name}/templates", {"uid": uid or tenant.uid, "templates": list(templates)}
    )


def version(number: int, content: str) -> dict[str, Any]:
    return copy.deepcopy(GREET) | {"version": number, "messages": [{"role": "user", "content": content + " {{ who }}"}]}


def listed(tenant: TestTenant) -> dict[str, str]:
    found = tenant.http().get("/v1/templates").json()["templates"]
    return {f"{template['name']}@{template['version']}": template["owner"] for template in found}


@pytest.fixture
def other(gateway: Any) -> Iterator[TestTenant]:
    """Another tenant."""
    made = gateway.new_tenant()
    yield made
    made.close()


def test_the_platform_brings_templates_and_they_answer(tenant):
    http = tenant.http()
    text = "Loam keeps tenants apart. It counts every cent. The ledger reconciles."
    answers = {
        name: http.post("/v1/complete", json={"template": name, "variables": {"text": text} | more})
        for name, more in {
            "summarize": {},
            "extract": {"fields": [{"name": "product"}]},
            "classify": {"labels": ["software", "food"]},
        }.items()
    }
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 200), answers
    assert {name: answer.headers["x-loam-template"] for name, answer in answers.items()} == {
        name: f"{name}@1" for name in answers
    }
    assert all(answer.json()["content"] for answer in answers.values())
    assert listed(tenant) == {"summarize@1": "platform", "extract@1": "platform", "classify@1": "platform"}


def test_a_name_is_its_latest_version_and_a_number_pins_one(tenant):
    put(tenant, version(2, "two"), version(10, "ten"), version(9, "nine")).raise_for_status()
    http = tenant.http()
    used = {
        reference: http.post("/v1/complete", json={"template": reference, "variables": {"who": "Eva"}}).headers[
            "x-loam-template"
        ]
        for reference in ("greet", "greet@2", "greet@9")
    }
    assert used == {"greet": "greet@10", "greet@2": "greet@2", "greet@9": "greet@9"}
    missing = http.post("/v1/complete", json={"template": "greet@3", "variables": {"who": "Eva"}})
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "template")


def test_a_template_streams_and_takes_messages_after_its_own(tenant):
    put(tenant, GREET).raise_for_status()
    body = {
        "template": "greet",
        "variables": {"who": "Eva"},
        "messages": [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Once more."}],
    }
    with tenant.http().stream("POST", "/v1/stream", json=body) as answer:
        events = [line[7:] for line in answer.iter_lines() if line.startswith("event: ")]
        assert answer.headers["x-loam-template"] == "greet@1"
    assert events[-2:] == ["usage", "done"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"template": "greet", "variables": {}}, "variables.who"),
        ({"template": "greet"}, "variables.who"),
        ({"template": "greet", "variables": {"who": "Eva", "whom": 1}}, "variables.whom"),
        ({"template": "greet", "variables": {"who": 7}}, "variables.who"),
        ({"template": "greet", "variables": {"who": "E" * 21}}, "variables.who"),
        ({"template": "extract", "variables": {"text": "x", "fields": [{"nam": "a"}]}}, "variables.fields.0"),
        ({"template": "greet@latest", "variables": {"who": "Eva"}}, "template"),
        ({"variables": {"who": "Eva"}, "messages": [{"role": "user", "content": "x"}]}, "variables"),
        ({}, "messages"),
    ],
)
def test_what_is_wrong_with_a_call_of_a_template_is_named(tenant, body, param):
    put(tenant, GREET).raise_for_status()
    answer = tenant.http().post("/v1/complete", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_a_tenants_own_template_hides_the_platforms_for_this_tenant_alone(tenant, other):
    put(tenant, GREET | {"name": "summarize", "version": 3}).raise_for_status()
    assert (listed(tenant), listed(other)) == (
        {"classify@1": "platform", "extract@1": "platform", "summarize@3": "tenant"},
        {"classify@1": "platform", "extract@1": "platform", "summarize@1": "platform"},
    )
    hidden = tenant.http().post("/v1/complete", json={"template": "summarize@1", "variables": {"text": "x"}})
    assert hidden.status_code == 404
    own = tenant.http().post("/v1/complete", json={"template": "summarize", "variables": {"who": "x"}})
    assert own.headers["x-loam-template"] == "summarize@3"
    foreign = other.http().post("/v1/complete", json={"template": "summarize@3", "variables": {"who": "x"}})
    assert foreign.status_code == 404


def test_what_is_not_put_again_is_gone_and_the_same_again_changes_nothing(tenant, query):
    audited = "SELECT after->'templates' AS named FROM audit_log WHERE tenant = $1 AND action = 'templates.put'"
    second = GREET | {"name": "bye"}
    for wanted in ([GREET, second], [GREET, second], [second]):
        put(tenant, *wanted).raise_for_status()
    own = [label for label, owner in listed(tenant).items() if owner == "tenant"]
    assert own == ["bye@1"]
    assert len(query(audited, tenant.name)) == 2


def test_a_recreated_tenant_starts_without_the_templates_of_the_one_before(tenant):
    put(tenant, GREET).raise_for_status()
    tenant.gateway.delete(f"/tenants/{tenant.name}?uid={tenant.uid}&policy=Delete").raise_for_status()
    assert put(tenant, GREET).status_code == 404
    tenant.uid = "another"
    tenant.put(adopt=True)
    assert "greet@1" not in listed(tenant)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": [{"role": "user", "content": "{{ who }} {{ whom }}"}]}, '"whom" is used in messages'),
        ({"messages": [{"role": "user", "content": "hello"}]}, '"who" is declared'),
        ({"messages": [{"role": "user", "content": "{{ who.name }}"}]}, "is no variable"),
        ({"variables": {"properties": {"who": {"type": "string"}}}}, "needs a default"),
    ],
)
def test_a_broken_template_is_refused_with_the_reason(tenant, change, said):
    answer = put(tenant, GREET | change)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_templates_of_another_owner_or_of_no_tenant_are_refused(tenant):
    assert put(tenant, GREET, uid="somebody").status_code == 409
    assert tenant.gateway.put("/tenants/nobody/templates", {"uid": "x", "templates": []}).status_code == 404


async def test_what_a_tenants_templates_were_before_is_not_kept_in_memory(tenant, gateway_database):
    pool = await postgres.connect(gateway_database, 4)
    async with directory.opened(pool, Vault(os.urandom(32)), gateway_database) as known:
        room = templates.opened(known)
        await asyncio.to_thread(put, tenant, GREET)
        known.forget()
        before = weakref.ref(await room.named(tenant.name, "greet"))
        await asyncio.to_thread(put, tenant, version(2, "Anew"))
        known.forget()
        assert (await room.named(tenant.name, "greet")).version == 2
        gc.collect()
        assert before() is None
    await pool.close()
