"""Everything that is billed by another measure than plain tokens is charged by that measure."""

import uuid

import httpx2 as httpx
import openai
import pytest

from loam_shared.credentials import Caller, sign_caller

from ._platform import HAIKU, say

ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY held_at"
RERANKER = {
    "uid": "reranker",
    "provider": "Bedrock",
    "modelId": "cohere.rerank-v3-5:0",
    "regions": ["us-east-1"],
    "capabilities": ["Rerank"],
    "price": {"perThousandQueries": "2.00"},
}
CACHING = {
    "inputPerMillion": "1",
    "outputPerMillion": "5",
    "cacheReadPerMillion": "0.1",
    "cacheWritePerMillion": "1.25",
}
TIERED = {
    "inputPerMillion": "1",
    "outputPerMillion": "2",
    "tiers": [{"aboveInputTokens": 200, "inputPerMillion": "10", "outputPerMillion": "20"}],
}


@pytest.fixture(scope="module", autouse=True)
def routes(gateway):
    gateway.model("reranker", RERANKER)
    for name, price in (("caching", CACHING), ("tiered", TIERED)):
        gateway.model(name, HAIKU | {"uid": name, "price": price})


@pytest.fixture
def caller(gateway):
    made = gateway.new_tenant(models=["haiku", "embedder", "reranker", "caching", "tiered"])
    yield made
    made.close()


def rerank(tenant, **body):
    tenant.new_key("k1")
    caller = Caller(tenant=tenant.name, key_id="k1", request_id=uuid.uuid4().hex, scopes=("rag:query",))
    token = sign_caller(caller, service="gateway", lifetime_seconds=30, key=tenant.gateway.signing_key)
    url = f"{tenant.gateway.internal}/internal/v1/rerank"
    return httpx.post(url, json={"model": "reranker"} | body, headers={"authorization": f"Bearer {token}"})


def test_a_ranking_is_charged_by_its_queries(caller, query):
    documents = ["Bern is the capital of Switzerland.", "Bread is baked from flour.", "The capital of France is Paris."]
    answer = rerank(caller, query="What is the capital of Switzerland?", documents=documents, top_n=2)
    told = answer.json()
    assert [found["index"] for found in told["results"]] == [0, 2]
    assert told["results"][0]["relevance_score"] > told["results"][1]["relevance_score"]
    assert told["usage"] == {"queries": 1, "cost_usd": "0.002"}
    assert answer.headers["x-loam-cost-usd"] == "0.002"
    [entry] = query(ENTRIES, caller.name)
    assert (entry["kind"], entry["queries"], entry["cost"], entry["estimated"]) == ("rerank", 1, 2_000_000, False)


def test_more_than_a_hundred_documents_are_more_queries_and_long_ones_an_estimate(caller, query):
    assert rerank(caller, query="bread", documents=["bread"] * 101).json()["usage"]["queries"] == 2
    assert rerank(caller, query="bread", documents=["bread " * 200] * 50).json()["usage"]["queries"] == 2
    exact, estimated = query(ENTRIES, caller.name)
    assert (exact["estimated"], estimated["estimated"]) == (False, True)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": "q", "documents": []}, "invalid_request"),
        ({"query": "", "documents": ["d"]}, "invalid_request"),
        ({"query": "q", "documents": ["d"], "model": "haiku"}, "invalid_request"),
        ({"query": "q", "documents": ["d"], "model": "none"}, "not_found"),
    ],
)
def test_what_cannot_be_ranked_is_refused_without_cost(body, code, caller, query):
    assert rerank(caller, **body).json()["error"]["code"] == code
    assert query(ENTRIES, caller.name) == []


def test_a_ranking_that_the_budget_does_not_cover_is_refused(caller):
    caller.put(models=["reranker"], budget={"monthlyUsd": "0.001"})
    assert rerank(caller, query="q", documents=["d"]).json()["error"]["code"] == "budget_exceeded"


@pytest.mark.parametrize("fault", [{"error": "500"}, {"cutAfter": 0}])
def test_a_ranking_that_fails_costs_only_what_may_have_been_billed(fault, caller, faults, query):
    faults({"contains": caller.name, "fault": fault})
    assert rerank(caller, query=caller.name, documents=["d"]).status_code == 502
    [entry] = query(ENTRIES, caller.name)
    assert entry["cost"] == (0 if "error" in fault else 2_000_000)


def test_what_the_provider_caches_is_charged_as_written_and_then_as_read(caller, query):
    system = {"type": "text", "text": f"{caller.name} " + "word " * 1500, "cache_control": {"type": "ephemeral"}}
    client = caller.client()
    for text in ("one", "two"):
        messages = [{"role": "system", "content": [system]}, *say(text)]
        usage = client.chat.completions.create(model="caching", messages=messages).usage
    written, read = query(ENTRIES, caller.name)
    assert written["cache_write_tokens"] == read["cache_read_tokens"] > 1024
    assert usage.prompt_tokens_details.cached_tokens == read["cache_read_tokens"]
    for entry in (written, read):
        units = (entry["input_tokens"], entry["output_tokens"], entry["cache_read_tokens"], entry["cache_write_tokens"])
        assert entry["cost"] == sum(n * price for n, price in zip(units, (1000, 5000, 100, 1250), strict=True))


def test_a_price_step_holds_for_the_whole_call_once_its_input_is_longer(caller, query):
    for words in (10, 1000):
        caller.client().chat.completions.create(model="tiered", messages=say("word " * words))
    below, above = query(ENTRIES, caller.name)
    assert below["input_tokens"] <= 200 < above["input_tokens"]
    assert below["cost"] == below["input_tokens"] * 1000 + below["output_tokens"] * 2000
    assert above["cost"] == above["input_tokens"] * 10_000 + above["output_tokens"] * 20_000


@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_that_the_bound_does_not_fit_is_enough_when_what_the_provider_counts_fits(stream, caller, query):
    text = f"{caller.name} " + "understanding " * 1000
    bound = len(text) * 250
    caller.put(models=["haiku"], budget={"monthlyUsd": f"{bound / 2 / 1e9:.9f}"})
    answer = caller.client().chat.completions.create(model="haiku", messages=say(text), max_tokens=64, stream=stream)
    assert not stream or list(answer)
    [entry] = query(ENTRIES, caller.name)
    assert entry["outcome"] == "complete"
    assert entry["cost"] <= entry["held"] <= bound / 2


def test_a_budget_that_even_the_count_does_not_fit_refuses(caller, query):
    text = f"{caller.name} " + "understanding " * 1000
    caller.put(models=["haiku"], budget={"monthlyUsd": "0.0002"})
    with pytest.raises(openai.APIStatusError) as caught:
        caller.client().chat.completions.create(model="haiku", messages=say(text), max_tokens=64)
    assert caught.value.code == "budget_exceeded"
    assert query(ENTRIES, caller.name) == []
