"""Chat completions and embeddings as HTTP answers; the public and the internal listener serve the same ones."""

from functools import partial

from fastapi import Request, Response

from loam_gateway.auth import tenant_of
from loam_gateway.completions.embeddings import EmbeddingRequest
from loam_gateway.completions.request import ChatRequest, parse
from loam_gateway.completions.rerank import RerankRequest
from loam_gateway.directory.model import Principal
from loam_gateway.metering.answers import Answer
from loam_gateway.metering.auto import AUTO, with_model
from loam_gateway.metering.charge import Replayed
from loam_gateway.metering.chat import ChatStream, complete
from loam_gateway.metering.desk import order_of
from loam_gateway.metering.embed import embed
from loam_gateway.metering.order import Order
from loam_gateway.metering.rerank import rerank
from loam_gateway.sse import EventStream
from loam_gateway.state import State
from loam_gateway.streams.opt_in import resumable


async def serve_chat(deps: State, request: Request, caller: Principal) -> Response:
    """A chat completion, plain or streamed. Raises LoamError."""
    body = parse(ChatRequest, await request.body())
    if body.model == AUTO:
        body = await with_model(deps.directory, await tenant_of(caller, deps), body, needs(body))
    order = await order_of(deps, request, caller, model=body.model, capabilities=needs(body))
    if body.stream:
        return await resumable(deps, request, caller, partial(_stream, deps, order, body))
    return respond(await complete(deps, order, body))


async def serve_embeddings(deps: State, request: Request, caller: Principal) -> Response:
    """Embeddings. Raises LoamError."""
    body = parse(EmbeddingRequest, await request.body())
    order = await order_of(deps, request, caller, model=body.model, capabilities=("Embed",))
    return respond(await embed(deps, order, body))


async def serve_rerank(deps: State, request: Request, caller: Principal) -> Response:
    """A ranking of documents. Raises LoamError."""
    body = parse(RerankRequest, await request.body())
    order = await order_of(deps, request, caller, model=body.model, capabilities=("Rerank",))
    return respond(await rerank(deps, order, body))


def needs(body: ChatRequest) -> tuple[str, ...]:
    """What a model must be capable of for this request; a JSON answer comes through a tool."""
    tools = body.tools or body.wants_json
    return ("Chat", *(("Stream",) if body.stream else ()), *(("Tools",) if tools else ()))


async def _stream(deps: State, order: Order, body: ChatRequest) -> Response:
    # A service always learns what its call has cost; a client of OpenAI's asks for the usage when it wants it.
    asked = body.stream_options is not None and body.stream_options.include_usage
    stream = ChatStream(deps, order, body, with_usage=asked or not order.caller.at_the_door)
    frames = stream.frames()
    try:
        # Until the first frame everything that fails is an HTTP error like any other.
        first = await anext(frames)
    except Replayed as replayed:
        return respond(Answer.unsealed(deps.vault, replayed.answer))
    return EventStream(first, frames, stream.headers)


def respond(answer: Answer) -> Response:
    """`answer` over HTTP."""
    return Response(answer.body, headers=answer.headers, media_type=answer.media_type)
