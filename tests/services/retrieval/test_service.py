"""Questions to a pipeline, through the real gateway and the real service."""

import asyncio
import json
from typing import Any

import pytest

from loam_shared.credentials import new_signing_key

from .._servers import embedded
from ..ingestion import _rag
from .conftest import suffering

QUESTION = {"messages": [{"role": "user", "content": "How many days of paid leave does everybody get?"}]}


async def _directly(pipeline: Any, path: str, body: dict, token: str | None) -> tuple[int, Any]:
    """A call to the service itself, as the gateway makes it."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = f"{pipeline.retrieval.url}{path}"
    async with pipeline.platform.session.post(url, json=body, headers=headers) as response:
        return response.status, json.loads(await response.read())


async def _query(pipeline: Any, text: str, **options: Any) -> tuple[int, Any]:
    body = {"query": text, "index": await pipeline.pointer()} | options
    return await _directly(pipeline, "/query", body, pipeline.token())


def _events(stream: str) -> list[tuple[str, dict]]:
    found = []
    for block in stream.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("mode", ["Vector", "Keyword", "Hybrid"])
async def test_every_way_of_searching_finds_what_was_asked_for(platform, pipeline, mode, tmp_path):
    config = json.loads((pipeline.folder / "pipeline.json").read_text())
    changed = tmp_path / "pipeline.json"
    changed.write_text(json.dumps(config | {"retrieval": {"mode": mode, "topK": 1}}))
    pod = _rag.Pod(
        "loam_retrieval",
        pipeline.folder / f"retrieval-{mode}",
        pipeline.pod_environment | {"LOAM_CONFIG_FILE": str(changed)},
        _free_port(),
    )
    pod.start()
    try:
        body = {"query": "lost badge", "index": await pipeline.pointer()}
        headers = {"authorization": f"Bearer {pipeline.token()}"}
        async with platform.session.post(f"{pod.url}/query", json=body, headers=headers) as response:
            found = json.loads(await response.read())
    finally:
        pod.stop()
    assert [match["source"] for match in found["matches"]] == ["badges.md"]
    assert (found["usage"]["inputTokens"] > 0) == (mode != "Keyword")


async def test_an_answer_streams_tokens_then_usage_with_its_cost_and_cites_word_for_word(pipeline):
    events = _events(await pipeline.call("POST", "/chat", QUESTION | {"stream": True}))
    names = [name for name, _ in events]
    assert names.count("token") > 3
    assert names[-2:] == ["usage", "done"]
    text = "".join(data["text"] for name, data in events if name == "token")
    assert "25 days" in text
    assert "[1]" in text
    [citation] = [data for name, data in events if name == "citation"]
    span = citation["span"]
    assert citation["source"] == "leave.md"
    original = (await pipeline.query("paid leave", filter={"name": "leave.md"}))[0]
    start = span["start"] - original["span"]["start"]
    assert original["text"][start : start + len(citation["quote"])] == citation["quote"]
    usage = dict(events)["usage"]
    assert usage["outputTokens"] > 0
    assert float(usage["costUsd"]) > 0


async def test_what_a_question_costs_is_charged_to_the_key_that_asked(platform, pipeline):
    query = "SELECT count(*), coalesce(sum(cost), 0)::bigint FROM entries WHERE tenant = $1 AND key_id = 'user-key'"
    count, cost = await platform.database.fetchrow(query, pipeline.tenant)
    answer = await pipeline.call("POST", "/chat", QUESTION)
    after_count, after_cost = await platform.database.fetchrow(query, pipeline.tenant)
    assert after_count - count == 2  # one for the question's embedding, one for the answer
    assert after_cost - cost == round(float(answer["usage"]["costUsd"]) * 1e9)


async def test_what_is_not_in_the_sources_is_said_without_a_citation(pipeline):
    answer = await pipeline.call("POST", "/chat", {"messages": [{"role": "user", "content": "Who wrote the Iliad?"}]})
    assert "source" in answer["content"]
    assert answer["citations"] == []


async def test_a_pipeline_without_documents_says_so_and_calls_no_model(platform):
    async with platform.pipeline() as empty:
        empty.retrieval.start()
        answer = await empty.call("POST", "/chat", QUESTION)
        assert await empty.query("anything") == []
    assert "nothing about that" in answer["content"]
    assert answer["usage"]["costUsd"] == "0"


async def test_a_document_that_imitates_the_fence_gives_no_orders(pipeline):
    question = {"messages": [{"role": "user", "content": "Where is the office of Miles O'Brien?"}]}
    answer = await pipeline.call("POST", "/chat", question)
    assert "room 7" in answer["content"]
    assert {one["source"] for one in answer["citations"]} == {"o'brien.txt"}


async def test_a_filter_narrows_the_search(pipeline):
    for wanted in ({"name": "leave.md"}, {"name": ["leave.md", "none.md"]}, {"mediaType": "text/markdown"}):
        sources = {match["source"] for match in await pipeline.query("badge", filter=wanted)}
        assert sources <= {"leave.md", "badges.md"}
        assert "leave.md" in sources
    assert [match["source"] for match in await pipeline.query("room", filter={"name": "o'brien.txt"})] == [
        "o'brien.txt"
    ]


@pytest.mark.parametrize(
    "value", ["x' OR '1'='1", "x') OR (1=1", "leave.md' --", "\\' OR true", 'x" OR "1"="1', "x'; DROP TABLE t; --", "%"]
)
async def test_a_filter_that_is_an_injection_finds_nothing(pipeline, value):
    status, found = await _query(pipeline, "leave", filter={"name": value})
    assert (status, found["matches"]) == (200, [])


async def test_a_filter_of_an_unknown_field_is_refused_with_the_known_ones(pipeline):
    status, body = await _query(pipeline, "leave", filter={"1=1 OR source": "x"})
    assert status == 400
    assert "documentId" in body["error"]["message"]


async def test_a_question_with_an_older_pointer_is_answered_from_its_version(pipeline):
    before = await pipeline.pointer()
    await pipeline.upload("leave.md", b"Everybody gets 99 days of paid leave.")
    with pipeline.working():
        await pipeline.settled()
        old = await _query(pipeline, "days of paid leave", index=before, topK=1)
        new = await _query(pipeline, "days of paid leave", topK=1)
        await pipeline.upload("leave.md", b"# Leave\n\nEverybody gets 25 days of paid leave per year.")
        await pipeline.settled()
    assert "25 days" in old[1]["matches"][0]["text"]
    assert "99 days" in new[1]["matches"][0]["text"]


async def test_a_version_that_is_gone_asks_to_come_again(pipeline):
    gone = await pipeline.pointer() | {"tableVersion": 4711}
    status, body = await _query(pipeline, "leave", index=gone)
    assert (status, body["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"tenant": "somebody-else"}, 401),
        ({"service": "agents"}, 401),
        ({"key": new_signing_key()}, 401),
        ({"pipeline": "other"}, 403),
        ({"pipeline": None}, 403),
    ],
    ids=["tenant", "service", "forged", "pipeline", "no-pipeline"],
)
async def test_a_token_for_anything_else_is_refused(pipeline, claims, status):
    assert (await _directly(pipeline, "/query", {"query": "x"}, pipeline.token(**claims)))[0] == status


@pytest.mark.parametrize("token", [None, "", "nonsense", "a.b.c", "loam_" + "x" * 43])
async def test_what_is_no_token_is_refused(pipeline, token):
    status, body = await _directly(pipeline, "/chat", QUESTION, token)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


async def test_a_budget_that_is_used_up_is_told_as_such(platform):
    async with platform.pipeline(budget={"monthlyUsd": "0.000000001"}) as poor:
        poor.retrieval.start()
        embedding = {"model": "titan-embed", "dimensions": 256}
        pointer = {"table": "handbook-v1", "tableVersion": 1, "chunks": 1, "embedding": embedding}
        status, body = await _directly(poor, "/query", {"query": "leave", "index": pointer}, poor.token())
    assert (status, body["error"]["code"]) == (402, "budget_exceeded")
    assert "cap" in body["error"]


async def test_a_caller_who_hangs_up_ends_the_models_work(platform, pipeline):
    query = "SELECT count(*) FROM holds WHERE tenant = $1"
    body = QUESTION | {"index": await pipeline.pointer()}
    headers = {"authorization": f"Bearer {pipeline.token()}"}
    async with suffering(platform, eventDelayMs=300):
        async with platform.session.post(f"{pipeline.retrieval.url}/chat", json=body, headers=headers) as response:
            assert b"token" in await response.content.readany()
            assert await platform.database.fetchval(query, pipeline.tenant) == 1
        async with asyncio.timeout(3):
            while await platform.database.fetchval(query, pipeline.tenant):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)


async def test_a_running_answer_counts_as_in_flight_until_it_ends(platform, pipeline):
    async def in_flight() -> str:
        async with platform.session.get(f"{pipeline.retrieval.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return next(line for line in lines if line.startswith("loam_requests_in_flight "))

    async with suffering(platform, eventDelayMs=100):
        asking = asyncio.create_task(pipeline.call("POST", "/chat", QUESTION))
        async with asyncio.timeout(5):
            while await in_flight() != "loam_requests_in_flight 1.0":  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        await asking
    assert await in_flight() == "loam_requests_in_flight 0.0"


async def test_a_citation_that_the_model_made_up_is_dropped_and_counted(platform, pipeline):
    async with suffering(platform, text="Everybody gets 25 days [1]. The moon is made of cheese [9]."):
        answer = await pipeline.call("POST", "/chat", QUESTION)
    assert [one["source"] for one in answer["citations"]] == ["leave.md"]
    assert "[9]" not in answer["content"]
    async with platform.session.get(f"{pipeline.retrieval.url}/metrics") as response:
        assert "loam_retrieval_citations_dropped_total 1.0" in await response.text()


async def test_an_answer_that_breaks_off_ends_with_an_error_event(platform, pipeline):
    async with suffering(platform, errorAfter=4, error="500"):
        events = _events(await pipeline.call("POST", "/chat", QUESTION | {"stream": True}))
    assert events[0][0] == "token"
    name, data = events[-1]
    assert name == "error"
    assert data["error"]["code"] == "provider_error"


async def test_a_gateway_that_is_away_is_a_503_that_says_when_to_come_again(pipeline):
    pod = _rag.Pod(
        "loam_retrieval",
        pipeline.folder / "lonely",
        pipeline.pod_environment | {"LOAM_GATEWAY_URL": f"http://127.0.0.1:{_free_port()}"},
        _free_port(),
    )
    pod.start()
    try:
        headers = {"authorization": f"Bearer {pipeline.token()}"}
        async with pipeline.platform.session.post(f"{pod.url}/query", json={"query": "x"}, headers=headers) as response:
            assert (response.status, response.headers["retry-after"]) == (503, "2")
    finally:
        pod.stop()


def _free_port() -> int:
    return embedded.free_ports(1)[0]
