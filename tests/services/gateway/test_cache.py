"""The response cache: what was answered once is answered again at no cost, and to nobody else."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loam_shared.money import parse_usd

from ._platform import EMBEDDER, HAIKU, GatewayProcess, Servers, TestTenant, say

ON = {"LOAM_CACHE_SECONDS": "60"}


@pytest.fixture(scope="module")
def gateway(folder: Path, servers: Servers) -> Iterator[GatewayProcess]:
    """A gateway with its cache on."""
    process = GatewayProcess(folder, replace(servers, more=ON)).start()
    process.model("haiku", HAIKU)
    process.model("embedder", EMBEDDER)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def neighbour(folder: Path, servers: Servers, gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """Another gateway of the same platform: with the same secrets, database and Redis."""
    process = GatewayProcess(folder, replace(servers, more=ON))
    for name in ("LOAM_ENCRYPTION_KEY_FILE", "LOAM_SIGNING_KEY_FILE", "LOAM_ADMIN_TOKEN_FILE"):
        process.environment[name] = gateway.environment[name]
    process.start()
    yield process
    process.stop()


@pytest.fixture
def entries(query: Any, tenant: TestTenant) -> Any:
    """How many entries of each kind the tenant has, and what they cost and saved."""

    def count() -> dict[str, tuple[int, int, int]]:
        rows = query(
            "SELECT kind, count(*) AS n, sum(cost) AS cost, sum(saving) AS saving "
            "FROM entries WHERE tenant = $1 GROUP BY kind",
            tenant.name,
        )
        return {row["kind"]: (row["n"], int(row["cost"]), int(row["saving"])) for row in rows}

    return count


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "haiku", "messages": say(text), "max_tokens": 50} | more


def something() -> str:
    return f"Tell me of {uuid.uuid4().hex}."


def post(http: Any, body: dict[str, Any], **headers: str) -> Any:
    answer = http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def test_the_same_request_again_costs_nothing_and_says_what_it_saved(tenant, entries):
    http, body = tenant.http(), ask(something())
    first, again = post(http, body), post(http, body)
    assert [answer.headers["x-loam-cache"] for answer in (first, again)] == ["miss", "hit"]
    assert again.headers["x-loam-cost-usd"] == again.json()["usage"]["cost_usd"] == "0"
    assert again.json()["choices"] == first.json()["choices"]
    assert again.json()["id"] != first.json()["id"]
    cost = parse_usd(first.headers["x-loam-cost-usd"])
    assert cost > 0
    assert entries() == {"completion": (1, cost, 0), "cache_hit": (1, 0, cost)}


def test_bodies_that_are_equal_as_json_are_the_same_request(tenant):
    http, text = tenant.http(), something()
    post(http, ask(text, temperature=0))
    raw = b'{ "temperature":0.0, "max_tokens" : 50, "messages":[{"content":"%s","role":"user"}],"model":"haiku"}'
    again = http.post("/v1/chat/completions", content=raw % text.encode())
    assert again.headers["x-loam-cache"] == "hit"


@pytest.mark.parametrize(
    "change", [{"max_tokens": 51}, {"temperature": 1}, {"user": "eva"}, {"stop": ["x"]}, {"top_p": 0.5}, {"seed": 1}]
)
def test_whatever_differs_makes_another_request(tenant, change):
    http, body = tenant.http(), ask(something())
    post(http, body)
    assert post(http, body | change).headers["x-loam-cache"] == "miss"


def test_a_stream_and_its_plain_twin_share_one_answer(tenant, entries):
    client, text = tenant.client(), something()
    body: dict[str, Any] = ask(text)

    def streamed() -> tuple[str, Any]:
        chunks = list(client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks[-1].usage

    (first, paid), (second, free) = streamed(), streamed()
    plain = client.chat.completions.create(**body)
    assert first == second == plain.choices[0].message.content
    assert (free.total_tokens, free.cost_usd, plain.usage.cost_usd) == (paid.total_tokens, "0", "0")
    cost = parse_usd(paid.cost_usd)
    assert entries() == {"stream": (1, cost, 0), "cache_hit": (2, 0, 2 * cost)}


def test_calls_of_tools_come_back_from_the_cache_whole(tenant):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    client = tenant.client()
    body = ask(something(), tools=tools, tool_choice="required")
    first, again = (client.chat.completions.create(**body).choices[0] for _ in range(2))
    assert again == first
    assert again.message.tool_calls
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**body, stream=True)]
    [call] = [call for delta in deltas for call in delta.tool_calls or ()]
    [whole] = first.message.tool_calls
    assert (call.id, call.function.model_dump()) == (whole.id, whole.function.model_dump())


@pytest.mark.parametrize(("said", "seen"), [("no-cache", ["miss", "miss", "hit"]), ("no-store", ["miss"] * 3)])
def test_a_call_may_ask_for_a_new_answer_or_for_no_trace_of_one(tenant, said, seen):
    http, body = tenant.http(), ask(something())
    found = [
        post(http, body, **{"cache-control": said}),
        post(http, body, **{"cache-control": said}),
        post(http, body, **({} if said == "no-cache" else {"cache-control": said})),
    ]
    assert [answer.headers["x-loam-cache"] for answer in found] == seen
    if said == "no-store":
        assert post(http, body).headers["x-loam-cache"] == "miss"


def test_another_tenant_never_hits_and_neither_does_a_recreated_one(tenant, gateway):
    other = gateway.new_tenant()
    body = ask(something())
    assert [post(t.http(), body).headers["x-loam-cache"] for t in (tenant, other, tenant, other)] == [
        "miss",
        "miss",
        "hit",
        "hit",
    ]
    other.close()
    tenant.gateway.delete(f"/tenants/{tenant.name}?uid={tenant.uid}&policy=Delete").raise_for_status()
    tenant.uid = "another"
    tenant.put(adopt=True)
    assert post(tenant.http(), body).headers["x-loam-cache"] == "miss"


async def test_fifty_equal_requests_over_two_gateways_make_one_call(tenant, neighbour, entries, faults):
    faults({"operation": "Converse", "fault": {"delayMs": 500}})
    key, body = tenant.new_key(), ask(something())
    clients = [tenant.async_client(key), TestTenant(neighbour, tenant.name, tenant.uid).async_client(key)]
    answers = await asyncio.gather(*(clients[n % 2].chat.completions.create(**body) for n in range(50)))
    for client in clients:
        await client.close()
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    found = await asyncio.to_thread(entries)
    assert {kind: n for kind, (n, _, _) in found.items()} == {"completion": 1, "cache_hit": 49}
    assert found["cache_hit"][2] == 49 * found["completion"][1]
