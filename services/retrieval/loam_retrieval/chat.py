"""Answers with citations, as a stream of events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from prometheus_client import Counter

from loam_retrieval import prompt
from loam_retrieval.adapters.gateway import Gateway, Json
from loam_retrieval.adapters.index import Passage
from loam_retrieval.citations import Citer
from loam_retrieval.pipeline import Pipeline
from loam_retrieval.question import Question
from loam_retrieval.search import Search
from loam_retrieval.settings import Settings
from loam_retrieval.usage import add
from loam_shared.contracts.retrieval import Chat, ChatEvent, Citation, Usage
from loam_shared.errors import InvalidRequestError

_log = structlog.get_logger()
_DROPPED = Counter(
    "loam_retrieval_citations_dropped_total",
    "Citations of what was not retrieved, or with a quotation that is not there.",
)
_DECLINED = Counter("loam_retrieval_declined_total", "Answers that say that it is not in the sources.")
NOTHING_FOUND = "There is nothing about that in the sources."


class Answers:
    """Answers questions from a pipeline's documents."""

    def __init__(self, settings: Settings, pipeline: Pipeline, gateway: Gateway, search: Search) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._gateway = gateway
        self._search = search

    async def answer(self, token: str, chat: Chat) -> AsyncGenerator[ChatEvent, None]:
        """Tokens and citations, then usage, then done. Raises LoamErrors, also after the first event."""
        generation = self._pipeline.generation
        if generation is None:
            raise InvalidRequestError("this pipeline has no generation model: it can be queried, but not chatted with")
        question = Question.of(chat.messages)
        budget = prompt.input_budget(generation, self._settings.prompt_tokens)
        # A question that is too long is refused before the search costs anything.
        begun = prompt.Prompt(generation, chat.messages, budget)
        found = await self._search(token, question, chat.index, chat.filter)
        usage = found.usage
        if found.passages:
            request, passages = begun.with_sources(found.passages)
            async with aclosing(self._generated(token, request, passages)) as events:
                async for event in events:
                    if isinstance(event, Usage):
                        usage = add(usage, event)
                    else:
                        yield event
        else:
            _DECLINED.inc()
            yield _token(NOTHING_FOUND)
        yield ChatEvent(event="usage", data=usage.model_dump(by_alias=True))
        yield ChatEvent(event="done")

    async def _generated(
        self, token: str, request: Json, passages: list[Passage]
    ) -> AsyncGenerator[ChatEvent | Usage, None]:
        citer = Citer(passages)
        async with aclosing(self._gateway.complete(token, request)) as deltas:
            async for delta in deltas:
                for piece in citer.feed(delta.text):
                    yield _event(piece)
                if delta.usage:
                    yield delta.usage
        for piece in citer.end():
            yield _token(piece)
        if citer.declined:
            _DECLINED.inc()
        if citer.dropped:
            _DROPPED.inc(citer.dropped)
            _log.info("citations dropped", count=citer.dropped, passages=len(passages))


def _event(piece: str | Citation) -> ChatEvent:
    if isinstance(piece, str):
        return _token(piece)
    return ChatEvent(event="citation", data=piece.model_dump(by_alias=True, exclude_none=True))


def _token(text: str) -> ChatEvent:
    return ChatEvent(event="token", data={"text": text})
