"""Questions to a pipeline: passed on to its retrieval service in the caller's name, and what comes back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import Field

from loam_gateway.adapters.retrieval import Call, told_error
from loam_gateway.directory.model import Principal
from loam_gateway.pipelines import catalog, conversations
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.room import Room
from loam_shared.contracts import Wire
from loam_shared.contracts.internal import IndexPointer
from loam_shared.contracts.retrieval import Chat, ChatEvent, Citation, Matches, Message, Query, Usage
from loam_shared.credentials import Caller, sign_caller
from loam_shared.errors import UnavailableError

Filter = dict[str, str | list[str]]


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
    """One caller's questions to one pipeline, under one request id."""

    def __init__(self, room: Room, caller: Principal, name: str, request_id: str) -> None:
        self._room = room
        self._caller = caller
        self._pipeline = PipelineId(caller.tenant, name)
        self._request_id = request_id

    async def query(self, ask: QueryAsk) -> Matches:
        """The best matches. Raises NotFoundError, and what the retrieval service answers."""
        call, index = await self._call(self._room.settings.query_timeout)
        question = Query(query=ask.query, top_k=ask.top_k, filter=ask.filter, index=index)
        return await self._room.retrieval.query(call, question)

    @asynccontextmanager
    async def chat(self, ask: ChatAsk) -> AsyncIterator[AsyncIterator[ChatEvent]]:
        """The answer's events. What goes wrong before the first is raised, as for `query`; later it is an event."""
        call, index = await self._call(self._room.settings.chat_timeout)
        said_before = await self._recalled(ask)
        question = Chat(messages=(*said_before, *ask.messages), filter=ask.filter, index=index)
        async with self._room.retrieval.chat(call, question) as events:
            first = await anext(events, None)
            if first is None:
                raise UnavailableError("the pipeline's retrieval service ended without an answer", retry_after=2)
            if first.event == "error":
                raise told_error(first.data)
            yield self._remembering(ask, _with_first(first, events))

    async def _call(self, seconds: float) -> tuple[Call, IndexPointer | None]:
        serving = await catalog.serving(self._room.pool, self._pipeline)
        caller = Caller(
            tenant=self._caller.tenant,
            key_id=self._caller.key_id,
            request_id=self._request_id,
            user=self._caller.user,
            scopes=tuple(sorted(self._caller.scopes)),
            pipeline=self._pipeline.name,
        )
        token = sign_caller(caller, service="retrieval", lifetime_seconds=seconds, key=self._room.signing_key)
        return Call(serving.endpoint, token, self._request_id, seconds), serving.index

    @property
    def _owner(self) -> str:
        return f"user:{self._caller.user}" if self._caller.user else f"key:{self._caller.key_id}"

    async def _recalled(self, ask: ChatAsk) -> Sequence[Message]:
        if ask.session_id is None:
            return ()
        return await conversations.recall(self._room.pool, self._pipeline, self._owner, ask.session_id)

    async def _remembering(self, ask: ChatAsk, events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
        """Pass the events on; a turn is remembered once its answer is complete, before the caller hears so.

        Raises UnavailableError when they stop before the end.
        """
        pieces: list[str] = []
        async for event in events:
            if event.event == "token":
                pieces.append(str(event.data.get("text", "")))
            if event.event == "done" and ask.session_id is not None:
                said = (*ask.messages, Message(role="assistant", content="".join(pieces)))
                await conversations.remember(self._room.pool, self._pipeline, self._owner, ask.session_id, said)
            yield event
            if event.event in {"done", "error"}:
                return
        raise UnavailableError("the pipeline's retrieval service stopped in the middle of its answer", retry_after=2)


async def _with_first(first: ChatEvent, rest: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    yield first
    async for event in rest:
        yield event
