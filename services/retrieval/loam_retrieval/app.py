"""The routes."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

import orjson
import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, Histogram, generate_latest

from loam_retrieval.adapters.index import Passage
from loam_retrieval.auth import Doorkeeper
from loam_retrieval.question import Question
from loam_retrieval.served import Pipelines
from loam_shared import errors, http, telemetry
from loam_shared.contracts.retrieval import Chat, ChatEvent, Match, Matches, Query, Span
from loam_shared.credentials import Caller

_log = structlog.get_logger()
_SECONDS = Histogram("loam_retrieval_seconds", "How long calls took.", ["route"])
# The pipeline's HorizontalPodAutoscaler goes by this one.
_IN_FLIGHT = Gauge("loam_requests_in_flight", "Calls that are being answered, streams included.")


@dataclass(frozen=True)
class _Admitted:
    caller: Caller
    token: str


def application(doorkeeper: Doorkeeper, pipelines: Pipelines) -> FastAPI:
    """The service of contracts/retrieval.py."""
    app = FastAPI(openapi_url=None, telemetry=telemetry.http_config())
    http.install(app)

    async def admitted(request: Request) -> AsyncIterator[_Admitted]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise errors.InvalidApiKeyError("a caller token is needed")
        caller = await doorkeeper.admit(token)
        with _IN_FLIGHT.track_inprogress():
            yield _Admitted(caller, token)

    @app.post("/query")
    async def query(asked: Query, by: Annotated[_Admitted, Depends(admitted)]) -> Response:
        with _SECONDS.labels("query").time():
            served = await pipelines.of(by.caller, asked)
            found = await served.search(by.token, Question(asked.query), asked.index, asked.filter, asked.top_k)
        matches = Matches(matches=tuple(map(_match, found.passages)), usage=found.usage)
        return Response(matches.to_json(), media_type="application/json")

    @app.post("/chat")
    async def chat(asked: Chat, request: Request, by: Annotated[_Admitted, Depends(admitted)]) -> Response:
        served = await pipelines.of(by.caller, asked)
        events = served.answers.answer(by.token, asked)
        # What fails before the first event is an ordinary error answer, with its status.
        first = await anext(events)
        stream = _stream(first, events, http.request_id_of(request))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


async def _stream(first: ChatEvent, rest: AsyncGenerator[ChatEvent, None], request_id: str) -> AsyncIterator[bytes]:
    with _SECONDS.labels("chat").time():
        async with aclosing(rest):
            yield _encoded(first)
            try:
                async for event in rest:
                    yield _encoded(event)
            except errors.LoamError as error:
                _log.warning("answer broke off", code=error.code, request_id=request_id)
                yield _encoded(ChatEvent(event="error", data=errors.render(error, request_id)))


def _encoded(event: ChatEvent) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.event.encode(), orjson.dumps(event.data))


def _match(passage: Passage) -> Match:
    return Match(
        document_id=passage.document_id,
        chunk_id=passage.chunk_id,
        text=passage.text,
        score=round(passage.score, 6),
        source=passage.source,
        span=Span(start=passage.start, end=passage.end, page=passage.page),
    )
