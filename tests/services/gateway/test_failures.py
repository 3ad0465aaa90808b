"""What callers see when something is away, slow or full."""

import asyncio
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import openai
import pytest

from .._servers import embedded
from ._platform import HAIKU, GatewayProcess, Servers, answers, eventually, say

ENTRIES = "SELECT * FROM entries WHERE tenant = $1"


def test_postgres_down_at_the_start_is_said_waited_for_and_given_up_in_one_sentence(folder, servers):
    [port] = embedded.free_ports(1)
    away = f"postgresql://loam@127.0.0.1:{port}/loam"
    gateway = GatewayProcess(folder, Servers(away, servers.redis_url, servers.s3_endpoint, servers.bedrock_url))
    with gateway.popen(LOAM_STARTUP_TIMEOUT="3") as process:
        health = f"{gateway.public}/v1/health"
        eventually(lambda: _status(health) == 503, "the listeners did not open")
        assert "PostgreSQL" in httpx.get(health).json()["reason"]
        refused = httpx.get(f"{gateway.public}/v1/models", headers={"authorization": "Bearer loam_x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
        _, errors = process.communicate(timeout=15)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("loam-gateway: PostgreSQL does not answer")


def _status(url):
    try:
        return httpx.get(url).status_code
    except httpx.HTTPError:
        return None


def test_a_database_that_was_not_migrated_is_said_in_one_sentence(folder, servers, postgres):
    bare = Servers(postgres.url("template1"), servers.redis_url, servers.s3_endpoint, servers.bedrock_url)
    with GatewayProcess(folder, bare).popen(LOAM_STARTUP_TIMEOUT="1") as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("loam-gateway: ")
    assert "python -m loam_gateway migrate" in errors.splitlines()[-1]


def test_a_port_in_use_is_said_in_one_sentence(folder, servers, gateway):
    second = GatewayProcess(folder, servers)
    with second.popen(LOAM_PUBLIC_PORT=gateway.public.rsplit(":", 1)[1]) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "cannot listen on 127.0.0.1:" in errors.splitlines()[-1]


def test_a_missing_setting_is_named(folder, servers):
    gateway = GatewayProcess(folder, servers)
    del gateway.environment["LOAM_ADMIN_TOKEN_FILE"]
    with gateway.popen() as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "LOAM_ADMIN_TOKEN_FILE" in errors


def test_sigterm_ends_it_cleanly_within_seconds_and_lets_a_stream_finish(folder, servers, faults):
    gateway = GatewayProcess(folder, servers).start()
    gateway.model("haiku", HAIKU)
    tenant = gateway.new_tenant()
    faults({"contains": tenant.name, "fault": {"eventDelayMs": 100}})
    stream = tenant.client().chat.completions.create(model="haiku", messages=say(f"hi {tenant.name}"), stream=True)
    next(stream)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(gateway.stop)
        chunks = list(stream)
        stopped.result()
    tenant.close()
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert time.monotonic() - began < 8


def test_without_redis_limits_are_not_enforced_and_money_is(folder, servers, gateway):
    [port] = embedded.free_ports(1)
    redis_gone = Servers(servers.database_url, f"redis://127.0.0.1:{port}/0", servers.s3_endpoint, servers.bedrock_url)
    gateway = GatewayProcess(folder, redis_gone).start()
    try:
        tenant = gateway.new_tenant(rateLimit={"requestsPerMinute": 1})
        client = tenant.client()
        for _ in range(3):
            assert client.chat.completions.create(model="haiku", messages=say("hello")).usage
        assert gateway.metric("loam_rate_limits_failed_open_total") == 3
        health = httpx.get(f"{gateway.public}/v1/health").json()
        assert (health["status"], health["dependencies"]["postgres"]) == ("degraded", "ok")
        tenant.put(budget={"monthlyUsd": "0"})
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="haiku", messages=say("hello"))
        assert caught.value.status_code == 402
        tenant.close()
    finally:
        gateway.stop()


def test_the_limit_of_requests_per_minute_lets_exactly_so_many_through(tenant):
    tenant.put(rateLimit={"requestsPerMinute": 5})
    outcomes = _at_once(tenant, 20)
    assert (outcomes.count(200), outcomes.count(429)) == (5, 15)


def test_a_refusal_by_a_limit_says_when_to_come_back(tenant):
    tenant.put(rateLimit={"requestsPerMinute": 1})
    client = tenant.client()
    client.chat.completions.create(model="haiku", messages=say("hello"))
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="haiku", messages=say("hello"))
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60


def test_the_limit_of_requests_at_once_holds_and_frees_its_places(tenant, faults):
    tenant.put(rateLimit={"concurrentRequests": 3})
    faults({"contains": tenant.name, "fault": {"delayMs": 500}})
    outcomes = _at_once(tenant, 10)
    assert (outcomes.count(200), outcomes.count(429)) == (3, 7)
    assert _at_once(tenant, 3) == [200, 200, 200]


def test_the_limit_of_tokens_per_minute_counts_what_was_used(tenant):
    tenant.put(rateLimit={"tokensPerMinute": 200})
    # A request is let in by its estimate, and counted by what it used: some fifty tokens of output each.
    outcomes = [_at_once(tenant, 1)[0] for _ in range(8)]
    assert outcomes[0] == 200
    assert outcomes[-1] == 429


def _at_once(tenant, count):
    async def ask(client):
        try:
            await client.chat.completions.create(model="haiku", messages=say(f"hi {tenant.name}"))
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    async def run(key):
        async with tenant.async_client(key) as client:
            return await asyncio.gather(*[ask(client) for _ in range(count)])

    return asyncio.run(run(tenant.new_key()))


def test_another_region_serves_when_the_first_throttles(tenant, faults, query):
    faults({"contains": tenant.name, "times": 1, "fault": {"error": "throttle"}})
    assert tenant.client().chat.completions.create(model="haiku", messages=say(f"hi {tenant.name}")).usage
    (entry,) = query(ENTRIES, tenant.name)
    assert entry["region"] == "us-west-2"


@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_serves_at_its_own_price_when_no_region_does(tenant, gateway, faults, query, stream):
    strong, name = f"strong-{uuid.uuid4().hex[:6]}", f"weak-{uuid.uuid4().hex[:6]}"
    dearer = {"inputPerMillion": "3", "outputPerMillion": "15"}
    gateway.model(strong, HAIKU | {"uid": strong, "modelId": "anthropic.claude-sonnet-5-5", "price": dearer})
    gateway.model(name, HAIKU | {"uid": name, "fallbacks": [strong]})
    tenant.put(models=[name, strong])
    faults({"model": HAIKU["modelId"], "contains": tenant.name, "fault": {"error": "throttle"}})
    answer = tenant.client().chat.completions.with_raw_response.create(
        model=name, messages=say(f"hi {tenant.name}"), stream=stream
    )
    assert answer.headers["x-loam-model"] == strong
    if stream:
        list(answer.parse())
    (entry,) = [entry for entry in query(ENTRIES, tenant.name) if entry["cost"]]
    assert (entry["model"], entry["output_price"]) == (strong, 15_000_000_000)


def test_when_all_throttle_the_caller_is_told_to_come_back(tenant, faults):
    faults({"contains": tenant.name, "fault": {"error": "throttle"}})
    with pytest.raises(openai.RateLimitError) as caught:
        tenant.client().chat.completions.create(model="haiku", messages=say(f"hi {tenant.name}"))
    assert int(caught.value.response.headers["retry-after"]) > 0


def test_what_the_model_refuses_is_the_callers_to_mend(tenant, faults):
    faults({"contains": tenant.name, "fault": {"error": "400", "message": "Input is too long."}})
    with pytest.raises(openai.BadRequestError, match="Input is too long"):
        tenant.client().chat.completions.create(model="haiku", messages=say(f"hi {tenant.name}"))


def test_a_provider_that_does_not_answer_in_time_is_charged_by_a_bound(folder, servers, gateway, faults, query):
    hasty = Servers(**(vars(servers) | {"more": {"LOAM_PROVIDER_READ_TIMEOUT": "0.5"}}))
    gateway = GatewayProcess(folder, hasty).start()
    try:
        tenant = gateway.new_tenant()
        faults({"contains": tenant.name, "fault": {"delayMs": 2000}})
        with pytest.raises(openai.InternalServerError) as caught:
            tenant.client().chat.completions.create(model="haiku", messages=say(f"hi {tenant.name}"))
        assert (caught.value.status_code, caught.value.body["code"]) == (504, "timeout")
        (entry,) = query(ENTRIES, tenant.name)
        assert entry["estimated"]
        assert 0 < entry["cost"] <= entry["held"]
        tenant.close()
    finally:
        gateway.stop()


def test_a_gateway_that_is_killed_leaves_a_hold_that_another_settles(folder, servers, faults, query, gateway):
    victim = GatewayProcess(folder, servers)
    process = subprocess.Popen(
        [sys.executable, "-m", "loam_gateway"], env=victim.environment, stderr=subprocess.DEVNULL
    )
    tenant = gateway.new_tenant()
    try:
        eventually(lambda: answers(f"{victim.public}/v1/health"), "the gateway did not start", 30)
        faults({"contains": tenant.name, "fault": {"eventDelayMs": 300}})
        with httpx.stream(
            "POST",
            f"{victim.public}/v1/chat/completions",
            json={"model": "haiku", "messages": say(f"hi {tenant.name}"), "stream": True},
            headers={"authorization": f"Bearer {tenant.new_key()}"},
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.kill()
            process.wait()
    finally:
        process.kill()
        process.wait()
        tenant.close()
    # Its hold lives on for up to a minute; the reaper's turn is brought forward.
    query("UPDATE holds SET expires_at = now() WHERE tenant = $1", tenant.name)
    eventually(lambda: query(ENTRIES, tenant.name), "the hold was not reaped", 20)
    (entry,) = query(ENTRIES, tenant.name)
    assert (entry["outcome"], entry["cost"], entry["estimated"]) == ("expired", entry["held"], True)
