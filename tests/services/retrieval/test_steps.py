"""Rerank and query expansion: through the gateway, charged to who asks, and never a reason for a search to fail."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from loam_shared.credentials import new_api_key

from ..ingestion import _rag
from .conftest import metric, serving, suffering

RERANK = {"rerank": {"enabled": True, "model": "cohere-rerank"}}
LOST = "Report a lost badge within an hour, in the office or on paid leave"
RERANKER, CHAT_MODEL = "cohere.rerank*", "anthropic.*"


@pytest.fixture(scope="module")
def reranking(pipeline: _rag.Pipeline) -> Iterator[_rag.Pod]:
    """Searches by words, which cost nothing, and then by a reranker."""
    spec = {"retrieval": {"mode": "Keyword", "topK": 3} | RERANK}
    with serving(pipeline, spec, LOAM_RERANK_SECONDS="2") as pod:
        yield pod


@pytest.fixture(scope="module")
def everything(pipeline: _rag.Pipeline) -> Iterator[_rag.Pod]:
    """Searches in every way there is."""
    spec = {"retrieval": {"mode": "Hybrid", "topK": 3, "queryExpansion": {"enabled": True}} | RERANK}
    with serving(pipeline, spec) as pod:
        yield pod


async def _query(pipeline: _rag.Pipeline, pod: _rag.Pod, text: str = LOST, **claims: Any) -> tuple[int, Any]:
    body = {"query": text, "index": await pipeline.pointer()}
    headers = {"authorization": f"Bearer {pipeline.token(**claims)}"}
    async with pipeline.platform.session.post(f"{pod.url}/query", json=body, headers=headers) as response:
        return response.status, json.loads(await response.read())


async def _charged(pipeline: _rag.Pipeline) -> dict[str, int]:
    """Entries of the user's key by kind, and their sum in nano-dollars."""
    rows = await pipeline.platform.database.fetch(
        "SELECT kind, count(*), sum(cost)::bigint AS cost FROM entries WHERE tenant = $1 AND key_id = 'user-key'"
        " GROUP BY kind",
        pipeline.tenant,
    )
    return {row["kind"]: row["count"] for row in rows} | {"nanos": sum(row["cost"] for row in rows)}


async def test_a_reranker_puts_the_candidates_in_its_order_and_the_caller_pays_for_it(pipeline, reranking):
    before = await _charged(pipeline)
    status, found = await _query(pipeline, reranking)
    after = await _charged(pipeline)
    assert status == 200
    assert found["matches"][0]["source"] == "badges.md"
    scores = [match["score"] for match in found["matches"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert after["rerank"] - before.get("rerank", 0) == 1
    assert found["usage"]["costUsd"] == "0.002"
    assert after["nanos"] - before["nanos"] == 2_000_000


@pytest.mark.parametrize("fault", [{"error": "500"}, {"error": "throttle"}, {"delayMs": 5000}], ids=str)
async def test_a_reranker_that_fails_or_is_late_leaves_the_search_its_own_order_and_is_counted(
    platform, pipeline, reranking, fault
):
    failed = await metric(reranking, "loam_retrieval_rerank_failures_total")
    async with suffering(platform, operation="invoke", model=RERANKER, **fault):
        status, found = await _query(pipeline, reranking)
    assert status == 200
    assert found["matches"][0]["source"] == "badges.md"
    assert max(match["score"] for match in found["matches"]) > 0
    assert await metric(reranking, "loam_retrieval_rerank_failures_total") == failed + 1


async def test_a_budget_that_has_no_room_for_the_reranker_is_a_refusal(platform, pipeline, reranking):
    await platform._key(pipeline.tenant, "poor-key", new_api_key(), scopes=["rag:query"], monthlyUsd="0.001")
    status, body = await _query(pipeline, reranking, key_id="poor-key")
    assert (status, body["error"]["code"]) == (402, "budget_exceeded")


async def test_an_expanded_search_asks_the_model_and_embeds_all_searches_at_once(pipeline, everything):
    before = await _charged(pipeline)
    status, found = await _query(pipeline, everything, "How many days of leave, and who wears a red badge?")
    after = await _charged(pipeline)
    assert status == 200
    assert {match["source"] for match in found["matches"][:2]} == {"leave.md", "badges.md"}
    asked = {kind: after[kind] - before.get(kind, 0) for kind in ("completion", "embedding", "rerank")}
    assert asked == {"completion": 1, "embedding": 1, "rerank": 1}
    assert Decimal(found["usage"]["costUsd"]) * 10**9 == after["nanos"] - before["nanos"]


@pytest.mark.parametrize("fault", [{"error": "500"}, {"text": "Sure! Here is what I think about that question.\n" * 4}])
async def test_an_expansion_that_fails_or_says_something_else_leaves_the_question_alone(
    platform, pipeline, everything, fault
):
    failed = await metric(everything, "loam_retrieval_expansion_failures_total")
    async with suffering(platform, operation="converse", model=CHAT_MODEL, **fault):
        status, found = await _query(pipeline, everything)
    assert (status, found["matches"][0]["source"]) == (200, "badges.md")
    assert await metric(everything, "loam_retrieval_expansion_failures_total") == failed + 1
