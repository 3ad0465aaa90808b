"""The response cache: what was answered once is answered again at no cost, and to nobody else."""

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loam_gateway.adapters.redis import Redis
from loam_gateway.cache.entry import Cached
from loam_gateway.cache.policy import CachePolicy
from loam_gateway.cache.room import ResponseCache
from loam_gateway.cache.shelf import Found, Shelf
from loam_gateway.metrics import Metrics
from loam_gateway.vault import Vault
from loam_shared.money import parse_usd

from .._servers import embedded
from .._servers.embedded import HOST
from ._platform import EMBEDDER, HAIKU, GatewayProcess, Servers, TestTenant, eventually, say

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
    faults({"operation": "converse", "fault": {"delayMs": 500}})
    key, body = tenant.new_key(), ask(something())
    clients = [tenant.async_client(key), TestTenant(neighbour, tenant.name, tenant.uid).async_client(key)]
    answers = await asyncio.gather(*(clients[n % 2].chat.completions.create(**body) for n in range(50)))
    for client in clients:
        await client.close()
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    found = await asyncio.to_thread(entries)
    assert {kind: n for kind, (n, _, _) in found.items()} == {"completion": 1, "cache_hit": 49}
    assert found["cache_hit"][2] == 49 * found["completion"][1]


async def test_a_failed_call_is_not_shared_and_the_next_one_asks_again(tenant, entries, faults):
    fault = {"delayMs": 300, "error": "400", "message": "no"}
    faults({"operation": "converse", "times": 1, "fault": fault}, {"operation": "Converse", "fault": {"delayMs": 100}})
    client, body = tenant.async_client(tenant.new_key()), ask(something())
    answers = await asyncio.gather(*(client.chat.completions.create(**body) for _ in range(5)), return_exceptions=True)
    await client.close()
    assert sorted(type(answer).__name__ for answer in answers) == ["BadRequestError", *["ChatCompletion"] * 4]
    found = await asyncio.to_thread(entries)
    assert {kind: n for kind, (n, _, _) in found.items()} == {"completion": 2, "cache_hit": 3}


async def test_who_waits_is_answered_though_the_first_hung_up(tenant, gateway, entries, query, faults):
    faults({"operation": "converse", "fault": {"delayMs": 1500}})
    client, body = tenant.async_client(tenant.new_key()), ask(something())
    before = gateway.metric("loam_cache_waits_total")

    async def until(condition: Any, what: str) -> None:
        await asyncio.to_thread(eventually, condition, what)

    first = asyncio.create_task(client.chat.completions.create(**body))
    await until(lambda: query("SELECT 1 FROM holds WHERE tenant = $1", tenant.name), "the first is under way")
    others = [asyncio.create_task(client.chat.completions.create(**body)) for _ in range(3)]
    await until(lambda: gateway.metric("loam_cache_waits_total") == before + 3, "the others wait")
    first.cancel()
    answers = await asyncio.gather(*others)
    await client.close()
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    found = await asyncio.to_thread(entries)
    assert {kind: n for kind, (n, _, _) in found.items()} == {"completion": 1, "cache_hit": 3}


async def test_a_leader_that_is_cancelled_hands_over_in_its_own_gateway_and_beyond(valkey_url):
    key, policy, vault, metrics = os.urandom(32), CachePolicy(60), Vault(os.urandom(32)), Metrics()
    async with Redis.open(valkey_url) as redis:
        one, other = (ResponseCache(redis, vault, metrics) for _ in range(2))
        asking: asyncio.Queue[str] = asyncio.Queue()

        async def ask_for_ever(name: str, cache: ResponseCache) -> None:
            with cache.turn(key, policy) as turn:
                assert await turn.answer() is None
                await asking.put(name)
                await asyncio.Event().wait()

        async def leads(name: str) -> None:
            async with asyncio.timeout(2):
                assert await asking.get() == name

        tasks = {}
        for name, cache in {"first": one, "second": one, "third": other}.items():
            tasks[name] = asyncio.create_task(ask_for_ever(name, cache))
            await asyncio.sleep(0)
        for name, task in tasks.items():
            await leads(name)
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def test_a_gateway_that_dies_while_it_asks_keeps_others_waiting_for_its_lease_only(valkey_url):
    key, cached = os.urandom(32), Cached({"content": "x"}, "stop", {}, "m", 1)
    policy, vault, metrics = CachePolicy(60), Vault(os.urandom(32)), Metrics()
    async with Redis.open(valkey_url) as redis:
        living = ResponseCache(redis, vault, metrics)
        dead = Shelf(redis, vault, lease_seconds=0.5)
        taken = dead.look(key)
        assert taken is not None
        assert dead.found(key, await taken) is Found.NOTHING
        begun = asyncio.get_running_loop().time()

        async def answered() -> Cached | None:
            with living.turn(key, policy) as turn:
                found = await turn.answer()
                if found is None:
                    turn.keep(cached, 60)
                return found

        found = await asyncio.gather(*(answered() for _ in range(3)))
        assert asyncio.get_running_loop().time() - begun >= 0.4
        assert found == [None, cached, cached]


async def test_whatever_becomes_of_the_calls_nobody_waits_for_ever_and_no_lease_is_left(valkey_url):
    chance, key, policy = random.Random(7), os.urandom(32), CachePolicy(60)
    vault, metrics = Vault(os.urandom(32)), Metrics()
    asked = 0

    async def call(cache: ResponseCache, outcome: str) -> None:
        nonlocal asked
        with cache.turn(key, policy) as turn:
            if await turn.answer() is not None:
                return
            asked += 1
            await asyncio.sleep(0.002)
            if outcome == "fails":
                raise ConnectionError
            if outcome == "alone":
                turn.let_go()
            else:
                turn.keep(Cached({"content": "x"}, "stop", {}, "m", 1), 0.02)

    async def cut_short(cache: ResponseCache) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 0.01):
                await call(cache, "late")

    async with Redis.open(valkey_url) as redis, asyncio.timeout(20):
        caches = [ResponseCache(redis, vault, metrics) for _ in range(3)]
        for _ in range(30):
            calls = [
                cut_short(chance.choice(caches))
                if chance.random() < 0.3
                else call(chance.choice(caches), chance.choice(["fails", "alone", "kept", "kept"]))
                for _ in range(20)
            ]
            await asyncio.gather(*calls, return_exceptions=True)
        assert asked < 400
        for cache in caches:
            assert cache.flights.lead(key)
        assert await redis.execute("EXISTS", f"loam:cache:{{{key.hex()}}}:lease") == 0


async def test_a_long_call_keeps_its_lease(valkey_url):
    key, cached = os.urandom(32), Cached({"content": "x"}, "stop", {}, "m", 1)
    policy, vault, metrics = CachePolicy(60), Vault(os.urandom(32)), Metrics()
    async with Redis.open(valkey_url) as redis:
        one, other = (ResponseCache(redis, vault, metrics, lease_seconds=0.2) for _ in range(2))

        async def waits() -> Cached | None:
            with other.turn(key, policy) as turn:
                return await turn.answer()

        with one.turn(key, policy) as turn:
            assert await turn.answer() is None
            waiting = asyncio.create_task(waits())
            await asyncio.sleep(0.7)
            turn.keep(cached, 60)
        assert await waiting == cached


def test_without_redis_everything_is_answered_and_calls_of_one_moment_still_share_one(folder, servers, gateway, faults):
    [port] = embedded.free_ports(1)
    alone = GatewayProcess(folder, replace(servers, redis_url=f"redis://{HOST}:{port}/0", more=ON)).start()
    faults({"operation": "converse", "fault": {"delayMs": 500}})
    tenant = alone.new_tenant()
    http, body = tenant.http(), ask(something())
    try:
        with ThreadPoolExecutor(8) as threads:
            said = list(threads.map(lambda _: post(http, body).headers["x-loam-cache"], range(8)))
        assert sorted(said) == ["hit"] * 7 + ["miss"]
        assert post(http, body).headers["x-loam-cache"] == "miss"
        assert alone.metric("loam_cache_failed_open_total") > 0
    finally:
        tenant.close()
        alone.stop()


def test_an_idempotency_key_is_claimed_and_answered_for_a_hit_too(tenant, entries):
    http, body = tenant.http(), ask(something())
    post(http, body)
    hit, replay = (post(http, body, **{"idempotency-key": "one"}) for _ in range(2))
    assert (hit.headers["x-loam-cache"], replay.headers["x-loam-replayed"]) == ("hit", "true")
    assert replay.json() == hit.json()
    assert entries()["cache_hit"][0] == 1
    other = http.post("/v1/chat/completions", json=ask("something else"), headers={"idempotency-key": "one"})
    assert other.status_code == 409


def test_nothing_that_was_said_can_be_read_in_redis(tenant, valkey_url):
    text = something()
    answer = post(tenant.http(), ask(text)).json()["choices"][0]["message"]["content"]

    async def read() -> bytes:
        async with Redis.open(valkey_url) as redis:
            keys = await redis.execute("KEYS", "loam:cache:*")
            kept = [await redis.execute("GET", key) or b"" for key in keys]
            return b"\n".join([*keys, *kept])

    kept = asyncio.run(read())
    assert b"loam:cache" in kept
    for secret in (text, answer, tenant.name, tenant.uid):
        assert secret.encode() not in kept


def test_a_hit_needs_no_budget_and_an_answer_that_a_budget_cut_short_is_nobody_elses(tenant):
    http, body = tenant.http(), ask(something(), max_tokens=4000)
    tenant.put(budget={"monthlyUsd": "0.0006"})
    long = body | {"messages": say("Repeat all of this. " + "many words " * 150)}
    cut = post(http, long)
    assert "x-loam-max-tokens" in cut.headers
    assert cut.json()["choices"][0]["finish_reason"] == "length"
    tenant.put()
    assert post(http, long).headers["x-loam-cache"] == "miss"
    post(http, body)
    tenant.put(budget={"monthlyUsd": "0"})
    assert post(http, body).headers["x-loam-cache"] == "hit"
    assert http.post("/v1/chat/completions", json=ask("new")).status_code == 402


def test_a_template_says_how_long_its_answers_last_and_an_edited_one_starts_anew(tenant, gateway):
    def put(seconds: int | None, words: str) -> None:
        content = f"{words} {{{{ what }}}}"
        template = {
            "name": "tell",
            "version": 1,
            "variables": {"properties": {"what": {"type": "string"}}, "required": ["what"]},
            "messages": [{"role": "user", "content": content}],
        } | ({} if seconds is None else {"cacheSeconds": seconds})
        gateway.put(f"/tenants/{tenant.name}/templates", {"uid": tenant.uid, "templates": [template]})

    http, what = tenant.http(), something()

    def cached(variables: dict[str, str] | None = None) -> bool:
        body = {"template": "tell", "variables": variables or {"what": what}}
        return bool(http.post("/v1/complete", json=body).json()["cached"])

    put(None, "Say")
    assert [cached(), cached(), cached({"what": "else"})] == [False, True, False]
    put(0, "Say")
    assert [cached(), cached()] == [False, False]
    put(60, "Tell")
    assert [cached(), cached()] == [False, True]
    plain = {"messages": say(f"Tell {what}"), "model": "haiku"}
    assert not http.post("/v1/complete", json=plain).json()["cached"]
    with http.stream("POST", "/v1/stream", json={"template": "tell", "variables": {"what": what}}) as answer:
        assert answer.headers["x-loam-cache"] == "hit"
        assert "event: done" in answer.read().decode()


def test_a_call_that_is_refused_keeps_nobody_from_asking(tenant, neighbour):
    tenant.put(rateLimit={"requestsPerMinute": 1})
    key, body = tenant.new_key(), ask(something())
    http = tenant.http(key)
    post(http, ask(something()))
    assert http.post("/v1/chat/completions", json=body).status_code == 429
    tenant.put(rateLimit={})
    other = TestTenant(neighbour, tenant.name, tenant.uid)
    assert post(other.http(key), body).elapsed.total_seconds() < 5
    other.close()


def test_what_the_cache_does_shows_in_the_metrics(tenant, gateway):
    names = [f"loam_cache_{name}_total" for name in ("lookups", "saved_usd")]
    before = [gateway.metric(name) for name in names]
    http, body = tenant.http(), ask(something())
    for _ in range(3):
        post(http, body)
    lookups, saved = (gateway.metric(name) - old for name, old in zip(names, before, strict=True))
    assert lookups == 3
    assert saved > 0
