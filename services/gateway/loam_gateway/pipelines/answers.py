"""Questions to a pipeline: passed on to its retrieval service in the caller's name, and what comes back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from pydantic import Field, TypeAdapter

from loam_gateway.adapters.retrieval import Call, told_error
from loam_gateway.directory.model import Principal
from loam_gateway.ledger.model import IdempotencyClaim
from loam_gateway.pipelines import catalog, conversations
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.pool import serving_part
from loam_gateway.pipelines.replays import Replay, claimed
from loam_gateway.pipelines.room import Room
from loam_shared.contracts import Wire
from loam_shared.contracts.internal import IndexPointer
from loam_shared.contracts.retrieval import (
    Chat,
    ChatEvent,
    Citation,
    FilterValue,
    Matches,
    Message,
    Query,
    Serving,
    Usage,
)
from loam_shared.credentials import Caller, sign_caller
from loam_shared.errors import UnavailableError

_EVENTS = TypeAdapter(list[ChatEvent])
Filter = dict[str, FilterValue | list[FilterValue]]


class QueryAsk(Wire):
    """A search, as callers ask it."""

    query: str = Field(min_length=1, max_length=20_000)
    top_k: int | None = Field(default=None, ge=1, le=100)
    filter: Filter = Field(default_factory=dict)


class ChatAsk(Wire):
    """A question with what was said before. With `session_id` the gateway remembers what was said before."""

    messages: tuple[Message, ...] = Field(min_length=1, max_length=100)
    session_id: str | None = Field(default=None, min_length=1, max_length=128)
    filter: Filter = Field(default_factory=dict)
    stream: bool = False


class ChatAnswer(Wire):
    """A whole answer. `citations` are in the order in which the answer makes them."""

    content: str
    citations: tuple[Citation, ...]
    usage: Usage
    session_id: str | None = None


@dataclass(slots=True)
class Gathered:
    """An answer as its events add up."""

    pieces: list[str] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def add(self, event: ChatEvent) -> None:
        """Take in one event. An error is raised as the LoamError that it tells of."""
        if event.event == "token":
            self.pieces.append(str(event.data.get("text", "")))
        elif event.event == "citation":
            self.citations.append(Citation.model_validate(event.data))
        elif event.event == "usage":
            self.usage = Usage.model_validate(event.data)
        elif event.event == "error":
            raise told_error(event.data)

    def answer(self, session_id: str | None) -> ChatAnswer:
        """What was gathered."""
        return ChatAnswer(
            content="".join(self.pieces), citations=tuple(self.citations), usage=self.usage, session_id=session_id
        )


class Answers:
    """One caller's questions to one pipeline, under one request id and, where it came with one, one Idempotency-Key."""

    def __init__(
        self, room: Room, caller: Principal, name: str, request_id: str, claim: IdempotencyClaim | None = None
    ) -> None:
        self._room = room
        self._caller = caller
        self._pipeline = PipelineId(caller.tenant, name)
        self._request_id = request_id
        self._claim = claim

    async def query(self, ask: QueryAsk) -> Matches:
        """The best matches. Raises NotFoundError, IdempotencyConflictError, and what the retrieval service answers."""
        seconds = self._room.settings.query_timeout
        async with self._claimed(seconds) as replay:
            if replay and replay.kept:
                return Matches.model_validate_json(replay.kept).model_copy(update={"usage": Usage()})
            call, index, serving = await self._call(seconds)
            question = Query(query=ask.query, top_k=ask.top_k, filter=ask.filter, index=index, serving=serving)
            found = await self._room.retrieval.query(call, question)
            if replay:
                await replay.keep(found.to_json().encode())
            return found

    @asynccontextmanager
    async def chat(self, ask: ChatAsk) -> AsyncIterator[AsyncIterator[ChatEvent]]:
        """The answer's events. What goes wrong before the first is raised, as for `query`; later it is an event."""
        seconds = self._room.settings.chat_timeout
        async with self._claimed(seconds) as replay:
            if replay and replay.kept:
                yield _again(replay.kept)
                return
            call, index, serving = await self._call(seconds)
            messages = (*await self._recalled(ask), *ask.messages)
            question = Chat(messages=messages, filter=ask.filter, index=index, serving=serving)
            async with self._room.retrieval.chat(call, question) as events:
                yield self._completed(ask, replay, await _begun(events))

    def _claimed(self, seconds: float) -> AbstractAsyncContextManager[Replay | None]:
        return claimed(self._room.pool, self._room.vault, self._caller, self._claim, seconds=seconds)

    async def _call(self, seconds: float) -> tuple[Call, IndexPointer | None, Serving | None]:
        found = await catalog.serving(self._room.pool, self._pipeline)
        told = await serving_part(self._room, self._pipeline, found.endpoint)
        caller = Caller(
            tenant=self._caller.tenant,
            key_id=self._caller.key_id,
            request_id=self._request_id,
            user=self._caller.user,
            scopes=tuple(sorted(self._caller.scopes)),
            pipeline=self._pipeline.name,
            serving=told.digest if told else None,
        )
        token = sign_caller(caller, service="retrieval", lifetime_seconds=seconds, key=self._room.signing_key)
        return Call(found.endpoint, token, self._request_id, seconds), found.index, told

    @property
    def _owner(self) -> str:
        return f"user:{self._caller.user}" if self._caller.user else f"key:{self._caller.key_id}"

    async def _recalled(self, ask: ChatAsk) -> Sequence[Message]:
        if ask.session_id is None:
            return ()
        return await conversations.recall(self._room.pool, self._pipeline, self._owner, ask.session_id)

    async def _completed(
        self, ask: ChatAsk, replay: Replay | None, events: AsyncIterator[ChatEvent]
    ) -> AsyncIterator[ChatEvent]:
        """Pass the events on; once the answer is complete it is kept and remembered, before the caller hears so.

        Raises UnavailableError when they stop before the end.
        """
        passed: list[ChatEvent] = []
        async for event in events:
            passed.append(event)
            if event.event == "done":
                await self._keep(ask, replay, passed)
            yield event
            if event.event in {"done", "error"}:
                return
        raise UnavailableError("the pipeline's retrieval service stopped in the middle of its answer", retry_after=2)

    async def _keep(self, ask: ChatAsk, replay: Replay | None, passed: Sequence[ChatEvent]) -> None:
        if ask.session_id is not None:
            content = "".join(str(event.data.get("text", "")) for event in passed if event.event == "token")
            said = (*ask.messages, Message(role="assistant", content=content))
            await conversations.remember(self._room.pool, self._pipeline, self._owner, ask.session_id, said)
        if replay is not None:
            await replay.keep(_EVENTS.dump_json(list(passed)))


async def _begun(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    """The same events, of which the first is there and is no error. Raises what it tells of, UnavailableError."""
    first = await anext(events, None)
    if first is None:
        raise UnavailableError("the pipeline's retrieval service ended without an answer", retry_after=2)
    if first.event == "error":
        raise told_error(first.data)
    return _with_first(first, events)


async def _with_first(first: ChatEvent, rest: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    yield first
    async for event in rest:
        yield event


async def _again(kept: bytes) -> AsyncIterator[ChatEvent]:
    """An answer that was given before; to say it again costs nothing."""
    for event in _EVENTS.validate_json(kept):
        yield event.model_copy(update={"data": Usage().model_dump(by_alias=True)}) if event.event == "usage" else event
