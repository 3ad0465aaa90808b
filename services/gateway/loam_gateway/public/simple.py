"""Loam's own plain routes: a completion, a stream of tokens and embeddings, without the ceremony of OpenAI's."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from loam_gateway.auth import caller_with, tenant_of
from loam_gateway.completions.embeddings import EmbeddingRequest
from loam_gateway.completions.request import ChatRequest, parse
from loam_gateway.directory.model import Principal
from loam_gateway.metering.answers import Answer
from loam_gateway.metering.charge import Replayed
from loam_gateway.metering.chat import ChatStream, complete
from loam_gateway.metering.choice import cheapest
from loam_gateway.metering.desk import order_of
from loam_gateway.metering.embed import embed
from loam_gateway.metering.serve import respond
from loam_gateway.sse import EventStream, frame
from loam_gateway.state import Deps, State
from loam_shared.contracts import Wire

router = APIRouter(prefix="/v1")
Completer = Annotated[Principal, Depends(caller_with("ai:complete"))]
Embedder = Annotated[Principal, Depends(caller_with("ai:embed"))]


class Turn(Wire):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Ask(Wire):
    """What to complete. Without a model, the cheapest that the tenant may use answers."""

    messages: list[Turn] = Field(min_length=1, max_length=10_000)
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)


class EmbedAsk(Wire):
    """What to embed. Without a model, the cheapest that the tenant may use does it."""

    input: str | list[str]
    model: str | None = None


@router.post("/complete")
async def complete_plainly(request: Request, deps: Deps, caller: Completer) -> Response:
    """``{content, model, usage, cached}``."""
    body = await _chat_request(deps, request, caller, stream=False)
    order = await order_of(deps, request, caller, model=body.model, capabilities=("Chat",))
    answer = await complete(deps, order, body)
    made = orjson.loads(answer.body)
    content = made["choices"][0]["message"]["content"]
    plain = {"content": content, "model": made["model"], "usage": _usage(made["usage"]), "cached": False}
    return respond(Answer(orjson.dumps(plain), answer.headers))


@router.post("/stream")
async def stream_plainly(request: Request, deps: Deps, caller: Completer) -> Response:
    """The events ``token``, ``usage``, ``done`` and ``error``."""
    body = await _chat_request(deps, request, caller, stream=True)
    order = await order_of(deps, request, caller, model=body.model, capabilities=("Chat", "Stream"))
    stream = ChatStream(deps, order, body, with_usage=True)
    frames = _plain_frames(stream.frames())
    try:
        first = await anext(frames)
    except Replayed as replayed:
        kept = Answer.unsealed(deps.vault, replayed.answer)
        events = b"".join(_plain(line) for line in kept.body.split(b"\n\n"))
        return respond(Answer(events, kept.headers, kept.media_type))
    return EventStream(first, frames, stream.headers)


@router.post("/embed")
async def embed_plainly(request: Request, deps: Deps, caller: Embedder) -> Response:
    """``{embeddings, usage}``."""
    ask = parse(EmbedAsk, await request.body())
    model = ask.model or await _cheapest(deps, caller, "Embed")
    order = await order_of(deps, request, caller, model=model, capabilities=("Embed",))
    answer = await embed(deps, order, EmbeddingRequest(model=model, input=ask.input))
    made = orjson.loads(answer.body)
    usage = {"inputTokens": made["usage"]["prompt_tokens"], "costUsd": made["usage"]["cost_usd"]}
    plain = {"embeddings": [vector["embedding"] for vector in made["data"]], "model": model, "usage": usage}
    return respond(Answer(orjson.dumps(plain), answer.headers))


async def _chat_request(deps: State, request: Request, caller: Principal, *, stream: bool) -> ChatRequest:
    ask = parse(Ask, await request.body())
    given = ask.model_dump(exclude_none=True)
    model = ask.model or await _cheapest(deps, caller, "Stream" if stream else "Chat")
    return ChatRequest.model_validate(given | {"model": model, "stream": stream})


async def _cheapest(deps: State, caller: Principal, capability: str) -> str:
    return (await cheapest(deps.directory, await tenant_of(caller, deps), capability)).name


async def _plain_frames(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(frames):
        async for data in frames:
            for event in data.split(b"\n\n"):
                if plain := _plain(event):
                    yield plain


def _plain(event: bytes) -> bytes:
    """One of OpenAI's chunks as an event of ours; nothing for one that says nothing here."""
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        return frame({}, "done")
    chunk: dict[str, Any] = orjson.loads(data) if data else {}
    if usage := chunk.get("usage"):
        return frame(_usage(usage), "usage")
    texts = [choice["delta"].get("content") for choice in chunk.get("choices", ())]
    return frame({"text": texts[0]}, "token") if texts and texts[0] else b""


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputTokens": usage["prompt_tokens"],
        "outputTokens": usage["completion_tokens"],
        "costUsd": usage["cost_usd"],
    }
