"""Questions go to the pipeline's own retrieval service in the caller's name, and its answers come back unchanged."""

import asyncio
import os

import pytest
from joserfc.jwk import KeySet

from loam_gateway.directory.changes import Act
from loam_gateway.directory.model import Principal
from loam_gateway.ledger.model import IdempotencyClaim
from loam_gateway.pipelines import catalog, conversations, manifests
from loam_gateway.pipelines.answers import Answers, ChatAsk, Gathered, QueryAsk
from loam_gateway.pipelines.model import PipelineId
from loam_shared import errors
from loam_shared.contracts.admin import PipelinePut
from loam_shared.contracts.internal import Claim, Commit, IndexPointer
from loam_shared.contracts.retrieval import Message
from loam_shared.credentials import InvalidCallerTokenError, verify_caller

from .conftest import EMBEDDING, SPEC


@pytest.fixture
async def served(room, pipeline, service):
    await manifests.put(
        room.pool, pipeline, PipelinePut(uid="uid", spec=SPEC, endpoint=service.url), Act("operator", "r")
    )
    return pipeline


def answers(room, pipeline: PipelineId, user: str | None = "ann", tenant: str | None = None) -> Answers:
    caller = Principal(tenant or pipeline.tenant, "key-1", user=user, scopes=frozenset({"rag:query"}))
    return Answers(room, caller, pipeline.name, "request-1")


async def chat(room, pipeline, *said: str, **more) -> Gathered:
    asked = {"messages": [{"role": "user", "content": text} for text in said], **more}
    gathered = Gathered()
    async with answers(room, pipeline, **({"user": asked.pop("user")} if "user" in asked else {})).chat(
        ChatAsk.model_validate(asked)
    ) as events:
        async for event in events:
            gathered.add(event)
    return gathered


async def test_a_query_goes_out_in_the_callers_name_with_the_index_that_counts(room, served, service):
    async with room.pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, served)
        await catalog.queue_sync(connection, served)
    work = await room.work.claim(served, Claim(worker="a", wait_seconds=0))
    index = IndexPointer(table="handbook-v1", table_version=4, chunks=1, embedding=work.targets[0].recipe.embedding)
    await room.work.commit(served, Commit(epoch=work.epoch, heads=(index,), results=()))
    found = await answers(room, served).query(QueryAsk(query="why", top_k=3, filter={"source": "a.md"}))
    assert [match.chunk_id for match in found.matches] == ["c1"]
    headers, body = service.asked[0]
    assert body == {
        "query": "why",
        "topK": 3,
        "filter": {"source": "a.md"},
        "index": {"table": "handbook-v1", "tableVersion": 4, "chunks": 1, "indexVersion": 1, "embedding": EMBEDDING},
    }
    token = headers["authorization"].removeprefix("Bearer ")
    keys = KeySet([room.signing_key])
    caller = verify_caller(token, keys=keys, service="retrieval", tenant=served.tenant)
    assert (caller.tenant, caller.user, caller.key_id, caller.pipeline) == (served.tenant, "ann", "key-1", "handbook")
    assert caller.request_id == headers["x-request-id"] == "request-1"
    with pytest.raises(InvalidCallerTokenError):
        verify_caller(token, keys=keys, service="retrieval", tenant="another")


async def test_another_tenants_pipeline_is_not_found(room, served, service):
    with pytest.raises(errors.NotFoundError):
        await answers(room, served, tenant="stranger").query(QueryAsk(query="why"))
    assert service.asked == []


async def test_an_answer_comes_back_whole_however_the_network_cuts_it(room, served):
    gathered = await chat(room, served, "why?")
    answer = gathered.answer(None)
    assert answer.content == "It is so. ✓"
    assert answer.citations[0].quote == "t"
    assert answer.usage.cost_usd == "0.001"


async def test_a_retrieval_service_that_is_away_is_unavailable_and_says_when_to_come_back(room, pipeline):
    with pytest.raises(errors.UnavailableError) as away:
        await answers(room, pipeline).query(QueryAsk(query="why"))
    assert away.value.retry_after


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("budget_exceeded", errors.BudgetExceededError),
        ("provider_error", errors.ProviderError),
        ("invalid_request", errors.InvalidRequestError),
        ("invalid_api_key", errors.UnavailableError),
        ("internal", errors.UnavailableError),
    ],
)
async def test_what_the_service_refuses_is_told_as_what_it_is(room, served, service, code, kind):
    service.refusal = (418, {"error": {"code": code, "message": "no", "cap": "monthlyUsd", "type": "t"}})
    for asking in (answers(room, served).query(QueryAsk(query="why")), chat(room, served, "why")):
        with pytest.raises(errors.LoamError) as refused:
            await asking
        assert type(refused.value) is kind
    if kind is errors.BudgetExceededError:
        assert refused.value.details == {"cap": "monthlyUsd"}


async def test_an_error_before_the_first_word_is_an_error_of_the_request(room, served, service):
    service.events = [("error", {"error": {"code": "budget_exceeded", "message": "no"}})]
    with pytest.raises(errors.BudgetExceededError):
        async with answers(room, served).chat(ChatAsk(messages=(Message(role="user", content="x"),))):
            pytest.fail("there is nothing to stream")


@pytest.mark.parametrize("events", [0, 2, 4])
async def test_an_answer_that_stops_in_the_middle_is_no_answer(room, served, service, events):
    service.events = service.events[:events]
    with pytest.raises(errors.UnavailableError):
        await chat(room, served, "why?", sessionId="s")
    assert await conversations.recall(room.pool, served, "user:ann", "s") == ()


async def test_hanging_up_ends_the_call_to_the_service(room, served, service):
    service.pause, service.events = 0.05, service.events[:1] * 200
    ask = ChatAsk(messages=(Message(role="user", content="x"),))
    async with answers(room, served).chat(ask) as events:
        assert (await anext(events)).event == "token"
    async with asyncio.timeout(5):
        await service.hung_up.wait()


async def test_a_session_remembers_what_was_said_and_to_whom(room, served, service):
    await chat(room, served, "first?", sessionId="s1")
    await chat(room, served, "second?", sessionId="s1")
    contents = [message["content"] for message in service.asked[-1][1]["messages"]]
    assert contents == ["first?", "It is so. ✓", "second?"]
    await chat(room, served, "third?", sessionId="s2")
    await chat(room, served, "fourth?", sessionId="s1", user="bob")
    assert [len(body["messages"]) for _, body in service.asked[-2:]] == [1, 1]


async def test_a_session_is_bounded_and_begins_with_a_question(room, served):
    said = [Message(role=("user", "assistant")[turn % 2], content="x" * 3000) for turn in range(60)]
    await conversations.remember(room.pool, served, "o", "s", said)
    await conversations.remember(room.pool, served, "o", "s", said[:2])
    kept = await conversations.recall(room.pool, served, "o", "s")
    assert 0 < len(kept) <= conversations.MAX_MESSAGES
    assert sum(len(message.content) for message in kept) <= conversations.MAX_CHARACTERS
    assert kept[0].role == "user"


async def test_turns_of_a_session_at_the_same_time_are_all_remembered(room, served):
    session = os.urandom(4).hex()
    await asyncio.gather(*(chat(room, served, f"{turn}?", sessionId=session) for turn in range(8)))
    assert len(await conversations.recall(room.pool, served, "user:ann", session)) == 16


def with_key(room, pipeline, value: str, body: bytes = b"same") -> Answers:
    caller = Principal(pipeline.tenant, "key-1", user="ann")
    return Answers(room, caller, pipeline.name, "request-1", IdempotencyClaim(value, body))


ASK = ChatAsk(messages=(Message(role="user", content="why?"),))


async def all_of(asking) -> list[tuple[str, dict]]:
    async with asking as events:
        return [(event.event, event.data) async for event in events]


async def test_a_question_with_the_same_idempotency_key_is_asked_once_and_costs_once(room, served, service):
    first = await all_of(with_key(room, served, "k1").chat(ASK))
    again = await all_of(with_key(room, served, "k1").chat(ASK))
    assert next(data for event, data in first if event == "usage")["costUsd"] == "0.001"
    assert next(data for event, data in again if event == "usage")["costUsd"] == "0"
    assert [one for one in first if one[0] != "usage"] == [one for one in again if one[0] != "usage"]
    matches = [await with_key(room, served, "k2").query(QueryAsk(query="why")) for _ in range(2)]
    assert matches[0].matches == matches[1].matches
    assert [found.usage.cost_usd for found in matches] == ["0.0002", "0"]
    assert len(service.asked) == 2


async def test_another_question_under_the_same_idempotency_key_is_a_conflict(room, served):
    await all_of(with_key(room, served, "k1").chat(ASK))
    with pytest.raises(errors.IdempotencyConflictError, match="another request"):
        await all_of(with_key(room, served, "k1", b"other").chat(ASK))


async def test_of_two_questions_at_once_with_one_idempotency_key_one_is_asked(room, served, service):
    service.pause = 0.05
    asking = [all_of(with_key(room, served, "k1").chat(ASK)) for _ in range(5)]
    done = await asyncio.gather(*asking, return_exceptions=True)
    assert len([one for one in done if isinstance(one, errors.IdempotencyConflictError)]) == 4
    assert len(service.asked) == 1


async def test_a_question_that_failed_leaves_its_idempotency_key_free(room, served, service):
    whole, service.events = service.events, service.events[:2]
    with pytest.raises(errors.UnavailableError):
        await all_of(with_key(room, served, "k1").chat(ASK))
    service.events = whole
    assert (await all_of(with_key(room, served, "k1").chat(ASK)))[-1] == ("done", {})
