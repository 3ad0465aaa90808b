"""Public routes of pipelines: documents, syncs, versions, query and chat."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from loam_gateway.auth import caller_with
from loam_gateway.directory.model import Principal
from loam_gateway.metering.answers import remaining_header
from loam_gateway.metering.desk import claim_of
from loam_gateway.pipelines import catalog, documents, retries
from loam_gateway.pipelines import versions as index_versions
from loam_gateway.pipelines.answers import Answers, ChatAnswer, ChatAsk, Gathered, QueryAsk
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.uploads import Intake
from loam_gateway.sse import EventStream, frame
from loam_gateway.state import Deps, State
from loam_gateway.streams.opt_in import resumable
from loam_shared.contracts import Wire
from loam_shared.contracts.internal import DocumentState
from loam_shared.contracts.retrieval import ChatEvent, Matches
from loam_shared.http import request_id_of

router = APIRouter(prefix="/v1/pipelines/{name}")
Writer = Annotated[Principal, Depends(caller_with("rag:write"))]
Asker = Annotated[Principal, Depends(caller_with("rag:query"))]
# Uploads have a limit of their own, which is a setting.
_NO_LIMIT_HERE = 2**62


async def _pipeline(caller: Writer, name: str) -> PipelineId:
    return PipelineId(caller.tenant, name)


Written = Annotated[PipelineId, Depends(_pipeline)]


class DocumentPage(Wire):
    """Documents in the order of their names."""

    documents: tuple[DocumentState, ...]
    next_cursor: str | None = None


class Rollback(Wire):
    """The index version to go back to."""

    version: int = Field(strict=True, ge=1, lt=2**31)


class Versions(Wire):
    """Index versions, newest first."""

    versions: tuple[index_versions.IndexVersion, ...]


@router.post("/documents", status_code=202, max_body_size=_NO_LIMIT_HERE)
async def upload(caller: Writer, name: str, request: Request, deps: Deps) -> dict[str, Any]:
    """Take one or several documents; they are searchable once their status is Ready."""
    accepted = await Intake(deps.pipelines, caller, name).take(request)
    taken = [_brief(one.document_id, one.name, one.status) for one in accepted]
    return taken[0] if len(taken) == 1 else {"documents": taken}


@router.get("/documents", response_model_exclude_none=True)
async def list_documents(
    pipeline: Written, deps: Deps, limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: str | None = None
) -> DocumentPage:
    """A page of documents; `nextCursor` asks for the ones that follow."""
    page = await documents.listing(deps.pool, pipeline, limit=limit, cursor=cursor)
    return DocumentPage(documents=tuple(page.documents), next_cursor=page.next_cursor)


@router.get("/documents/{document_id}", response_model_exclude_none=True)
async def show_document(pipeline: Written, document_id: str, deps: Deps) -> DocumentState:
    """One document."""
    return await documents.show(deps.pool, pipeline, document_id)


@router.delete("/documents/{document_id}", status_code=202)
async def remove_document(pipeline: Written, document_id: str, deps: Deps) -> dict[str, Any]:
    """Have a document taken out of the index and deleted."""
    removing = await documents.remove(deps.pool, pipeline, document_id)
    return _brief(removing.document_id, removing.name, removing.status)


@router.post("/documents/{document_id}/retry", status_code=202)
async def retry_document(pipeline: Written, document_id: str, deps: Deps) -> dict[str, Any]:
    """Have a document that failed read anew."""
    retried = await retries.retry(deps.pool, pipeline, document_id)
    return _brief(retried.document_id, retried.name, retried.status)


@router.post("/sync", status_code=202)
async def sync(pipeline: Written, deps: Deps) -> dict[str, str]:
    """Have the sources looked at now."""
    async with deps.pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, pipeline)
        await catalog.queue_sync(connection, pipeline)
    return {"status": "Pending"}


@router.get("/versions", response_model_exclude_none=True)
async def list_versions(pipeline: Written, deps: Deps) -> Versions:
    """The index versions that are kept."""
    return Versions(versions=tuple(await index_versions.versions(deps.pool, pipeline)))


@router.post("/rollback", response_model_exclude_none=True)
async def rollback(pipeline: Written, wanted: Rollback, deps: Deps) -> index_versions.IndexVersion:
    """Answer from an earlier index version from now on."""
    return await index_versions.rollback(deps.pool, pipeline, wanted.version)


async def _answers(caller: Asker, name: str, request: Request, deps: Deps) -> Answers:
    return Answers(deps.pipelines, caller, name, request_id_of(request), await claim_of(request))


Answering = Annotated[Answers, Depends(_answers)]


@router.post("/query", response_model_exclude_none=True)
async def query(answers: Answering, caller: Asker, ask: QueryAsk, response: Response, deps: Deps) -> Matches:
    """The passages that fit best."""
    found = await answers.query(ask)
    response.headers.update(await _metered(deps, caller, found.usage.cost_usd))
    return found


@router.post("/chat", response_model=ChatAnswer, response_model_exclude_none=True)
async def chat(
    request: Request, name: str, caller: Asker, ask: ChatAsk, response: Response, deps: Deps
) -> ChatAnswer | Response:
    """An answer from the documents, with citations; as server-sent events with ``stream: true``."""
    if ask.stream:
        return await stream_chat(request, name, caller, ask, deps)
    answers = await _answers(caller, name, request, deps)
    async with answers.chat(ask) as events:
        gathered = Gathered()
        async for event in events:
            gathered.add(event)
    response.headers.update(await _metered(deps, caller, gathered.usage.cost_usd))
    return gathered.answer(ask.session_id)


async def stream_chat(request: Request, name: str, caller: Principal, ask: ChatAsk, deps: State) -> Response:
    """An answer from the documents, as server-sent events."""
    answers = await _answers(caller, name, request, deps)
    return await resumable(deps, request, caller, partial(_streamed, answers, ask))


async def _streamed(answers: Answers, ask: ChatAsk) -> Response:
    async with AsyncExitStack() as stack:
        events = await stack.enter_async_context(answers.chat(ask))
        return _Streamed(events, stack.pop_all())


class _Streamed(EventStream):
    """An answer as it comes; the call to the retrieval service ends with it, also when the caller hangs up at once."""

    def __init__(self, events: AsyncIterator[ChatEvent], held: AsyncExitStack) -> None:
        super().__init__(b"", _frames(events), {})
        self._held = held

    async def aclose(self) -> None:
        await super().aclose()
        await self._held.aclose()


async def _frames(events: AsyncIterator[ChatEvent]) -> AsyncGenerator[bytes, None]:
    async for event in events:
        yield frame(event.data, event.event)


async def _metered(deps: State, caller: Principal, cost_usd: str) -> dict[str, str]:
    """What the call cost, embedding and generation together, and what is left under the caller's tightest cap."""
    balances = await deps.ledger.budget(caller.tenant, caller.user, caller.key_id)
    left = [balance.remaining_nanos for balance in balances if balance.remaining_nanos is not None]
    return {"x-loam-cost-usd": cost_usd, "x-loam-cache": "miss"} | remaining_header(min(left, default=None))


def _brief(document_id: str, name: str, status: str) -> dict[str, Any]:
    return {"documentId": document_id, "name": name, "status": status}
