"""Where a call goes: regions, circuits, fallbacks, hedges, and the cheapest model that can do it."""

import time

import openai
import pytest

from .._servers.providers import stand_in
from ._platform import HAIKU, GatewayProcess, eventually, say

ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY held_at"
# Long enough for a slow machine to make the calls in between.
COOLDOWN = 4.0
HEDGE = 1.5
DEAR = {"inputPerMillion": "3", "outputPerMillion": "15"}
STEEP = {
    "inputPerMillion": "0.01",
    "outputPerMillion": "0.01",
    "tiers": [{"aboveInputTokens": 2000, "inputPerMillion": "30", "outputPerMillion": "150"}],
}


@pytest.fixture(scope="module")
def elsewhere():
    with stand_in() as server:
        yield server


@pytest.fixture(scope="module")
def router(folder, servers, elsewhere):
    """A gateway that loses its patience soon."""
    more = {"LOAM_CIRCUIT_FAILURES": "3", "LOAM_CIRCUIT_COOLDOWN_SECONDS": str(COOLDOWN)}
    process = GatewayProcess(folder, _with(servers, more)).start()
    gpt = {"provider": "OpenAI", "modelId": "gpt-4.1", "baseUrl": elsewhere.openai, "regions": []}
    process.model("gpt", HAIKU | gpt | {"uid": "gpt", "price": DEAR})
    yield process
    process.stop()


def _with(servers, more):
    return type(servers)(servers.database_url, servers.redis_url, servers.s3_endpoint, servers.bedrock_url, more)


@pytest.fixture
def caller(router, query):
    made = router.new_tenant(models=["gpt"])
    yield made
    made.close()


@pytest.fixture
def route(router, caller):
    """Puts a ModelRoute of this test's own, with a circuit of its own."""
    named = []

    def put(name, **more):
        name = f"{name}-{caller.name}"
        router.model(name, HAIKU | {"uid": name} | more)
        named.append(name)
        caller.put(models=["gpt", *named])
        return name

    return put


@pytest.fixture
def play(elsewhere):
    elsewhere.play.asked.clear()
    elsewhere.play.faults.clear()
    return elsewhere.play


def ask(tenant, model, text="", **more):
    text = text or f"hi {tenant.name} {time.time_ns()}"
    return tenant.client().chat.completions.with_raw_response.create(model=model, messages=say(text), **more)


def down(caller, error="503", **more):
    return {"contains": caller.name, "fault": {"error": error}} | more


def test_a_region_that_fails_is_followed_by_the_next_and_only_the_one_that_serves_is_billed(
    caller, route, faults, query
):
    name = route("two")
    faults(down(caller, times=1))
    assert ask(caller, name).headers["x-loam-model"] == name
    [entry] = query(ENTRIES, caller.name)
    assert (entry["region"], entry["outcome"]) == ("us-west-2", "complete")


def test_an_open_circuit_skips_the_region_until_a_probe_finds_it_well(caller, route, faults, router, query):
    name = route("fragile", regions=["us-east-1"])
    faults(down(caller))
    for _ in range(3):
        with pytest.raises(openai.InternalServerError, match="failed"):
            ask(caller, name)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(caller, name)
    assert (caught.value.status_code, caught.value.code) == (503, "unavailable")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= COOLDOWN
    assert _state(router, name) == 2
    faults()
    eventually(lambda: _state(router, name) == 1, "the circuit is half-open")
    assert ask(caller, name).headers["x-loam-cost-usd"]
    assert _state(router, name) == 0
    costs = [entry["cost"] for entry in query(ENTRIES, caller.name)]
    assert costs[:4] == [0] * 4
    assert costs[4] > 0


def _state(router, name):
    return router.metric("loam_breaker_state", model=name)


def test_a_model_whose_circuit_is_open_falls_back_at_once_to_another_provider(caller, route, faults, play, query):
    name = route("falls", regions=["us-east-1"], fallbacks=["gpt"])
    faults(down(caller))
    for _ in range(5):
        assert ask(caller, name).headers["x-loam-model"] == "gpt"
    assert len(play.asked) == 5
    # Three times it was held and asked for nothing; then it is left alone.
    models = [entry["model"] for entry in query(ENTRIES, caller.name)]
    assert models == [name, "gpt"] * 3 + ["gpt"] * 2


def test_throttling_does_not_open_a_circuit(caller, route, faults):
    name = route("busy", regions=["us-east-1"])
    faults(down(caller, "throttle", times=5))
    for _ in range(5):
        with pytest.raises(openai.RateLimitError):
            ask(caller, name)
    assert ask(caller, name).headers["x-loam-cost-usd"]


def test_a_dearer_fallback_takes_its_hold_anew_and_is_clamped_to_what_is_left(caller, route, faults, query, play):
    name = route("cheap", regions=["us-east-1"], fallbacks=["gpt"])
    caller.put(models=["gpt", name], budget={"monthlyUsd": "0.02"})
    faults(down(caller))
    answer = ask(caller, name, max_tokens=4000)
    sent = play.asked[0].body["max_completion_tokens"]
    assert sent < 4000
    assert answer.headers["x-loam-max-tokens"] == str(sent)
    held = [entry["held"] for entry in query(ENTRIES, caller.name)]
    assert held[0] < held[1] <= 20_000_000


def test_a_fallback_that_the_budget_does_not_cover_is_refused_as_such(caller, route, faults, query, play):
    name = route("cheap", regions=["us-east-1"], fallbacks=["gpt"])
    caller.put(models=["gpt", name], budget={"monthlyUsd": "0.0005"})
    faults(down(caller))
    with pytest.raises(openai.APIStatusError) as caught:
        ask(caller, name, max_tokens=100)
    assert caught.value.code == "budget_exceeded"
    assert play.asked == []


def test_a_request_that_the_model_refuses_is_not_tried_elsewhere(caller, route, faults, play):
    name = route("strict", fallbacks=["gpt"])
    faults(down(caller, "400"))
    with pytest.raises(openai.BadRequestError):
        ask(caller, name)
    assert play.asked == []


def test_a_stream_that_has_begun_is_not_begun_again_elsewhere(caller, route, faults, play):
    name = route("cut", fallbacks=["gpt"])
    faults({"contains": caller.name, "fault": {"cutAfter": 3}})
    messages = say(f"hi {caller.name}")
    with pytest.raises(openai.APIError):
        list(caller.client().chat.completions.create(model=name, messages=messages, stream=True))
    assert play.asked == []


def test_auto_takes_the_model_that_may_cost_least_for_this_very_request(caller, route):
    route("haiku")
    steep = route("steep", price=STEEP)
    short = ask(caller, "auto", max_tokens=10)
    assert short.headers["x-loam-model"] == steep
    assert short.parse().model == steep
    long = ask(caller, "auto", "word " * 2000 + caller.name, max_tokens=10)
    assert long.headers["x-loam-model"].startswith("haiku-")


def test_auto_leaves_out_what_cannot_do_the_request(caller, route):
    route("weak", price=STEEP, capabilities=["Chat"])
    route("curt", price=STEEP, maxOutputTokens=50)
    able = route("able")
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
    assert ask(caller, "auto", tools=[tool], max_tokens=100).headers["x-loam-model"] == able
    caller.put(models=[])
    with pytest.raises(openai.NotFoundError):
        ask(caller, "auto")


def test_the_plain_route_picks_by_the_same_rule(caller, route):
    steep = route("steep", price=STEEP)
    body = {"messages": say(f"hi {caller.name}"), "maxTokens": 10}
    assert caller.http().post("/v1/complete", json=body).json()["model"] == steep


def test_strict_names_the_first_parameter_that_the_model_does_not_take(caller, route):
    name = route("plain")
    dropped = ask(caller, name, seed=7, logit_bias={"1": 2}).headers["x-loam-dropped-params"]
    assert set(dropped.split(",")) == {"seed", "logit_bias"}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(caller, name, seed=7, extra_body={"strict": True})
    assert caught.value.param == "seed"
    assert ask(caller, name, temperature=0.5, extra_body={"strict": True}).headers["x-loam-model"] == name


def test_auto_and_strict_together_find_a_model_that_takes_everything(caller, route, play):
    route("plain", price=STEEP)
    assert ask(caller, "auto", seed=7, extra_body={"strict": True}).headers["x-loam-model"] == "gpt"
    assert play.asked[0].body["seed"] == 7


@pytest.fixture(scope="module")
def hedging(folder, servers):
    """A gateway that soon asks another region."""
    process = GatewayProcess(folder, _with(servers, {"LOAM_HEDGE_SECONDS": str(HEDGE)})).start()
    process.model("haiku", HAIKU)
    yield process
    process.stop()


def test_a_hedge_answers_for_a_region_that_is_slow_and_both_calls_are_paid_for(hedging, faults, query):
    tenant = hedging.new_tenant(models=["haiku"])
    faults({"contains": tenant.name, "times": 1, "fault": {"delayMs": 20_000}})
    begun = time.monotonic()
    assert ask(tenant, "haiku").parse().choices
    assert time.monotonic() - begun < 15
    entries = {entry["region"]: entry for entry in query(ENTRIES, tenant.name)}
    assert entries["us-west-2"]["outcome"] == "complete"
    loser = entries["us-east-1"]
    assert (loser["outcome"], loser["estimated"]) == ("cut", True)
    assert 0 < loser["cost"] <= loser["held"]
    tenant.close()


def test_a_call_that_is_answered_in_time_is_not_hedged_nor_one_with_an_idempotency_key(hedging, faults, query):
    tenant = hedging.new_tenant(models=["haiku"])
    ask(tenant, "haiku")
    faults({"contains": tenant.name, "fault": {"delayMs": HEDGE * 1000 + 500}})
    ask(tenant, "haiku", extra_headers={"Idempotency-Key": "once"})
    assert [entry["outcome"] for entry in query(ENTRIES, tenant.name)] == ["complete", "complete"]
    tenant.close()


def test_a_hedge_that_the_budget_does_not_cover_leaves_the_first_call_alone(hedging, faults, query):
    tenant = hedging.new_tenant(models=["haiku"], budget={"monthlyUsd": "0.00085"})
    faults({"contains": tenant.name, "fault": {"delayMs": HEDGE * 1000 + 500}})
    assert ask(tenant, "haiku", max_tokens=600).parse().choices
    assert [entry["outcome"] for entry in query(ENTRIES, tenant.name)] == ["complete"]
    tenant.close()
