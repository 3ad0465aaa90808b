"""Loam's own plain routes: a completion, a stream of tokens and embeddings, without the ceremony of OpenAI's."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from loam_gateway.auth import caller_with, tenant_of
from loam_gateway.completions.embeddings import EmbeddingRequest
from loam_gateway.completions.reply import Chunk
from loam_gateway.completions.request import ChatRequest, made, parse
from loam_gateway.directory.model import Principal
from loam_gateway.metering.answers import Answer
from loam_gateway.metering.auto import AUTO, with_model
from loam_gateway.metering.charge import Replayed
from loam_gateway.metering.chat import ChatStream, complete
from loam_gateway.metering.choice import cheapest
from loam_gateway.metering.desk import order_of
from loam_gateway.metering.embed import embed
from loam_gateway.metering.order import Order
from loam_gateway.metering.serve import needs, respond
from loam_gateway.sse import EventStream, frame
from loam_gateway.state import Deps, State
from loam_gateway.streams.opt_in import resumable
from loam_gateway.templates.render import render
from loam_shared.contracts import Wire
from loam_shared.contracts.templates import PromptTemplate
from loam_shared.errors import InvalidRequestError

router = APIRouter(prefix="/v1")
_DONE = frame({}, "done")
Completer = Annotated[Principal, Depends(caller_with("ai:complete"))]
Embedder = Annotated[Principal, Depends(caller_with("ai:embed"))]


class Turn(Wire):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Ask(Wire):
    """What to complete: a template with its variables, messages, or both, the messages after those of the template.

    Without a model that of the template answers, or else the cheapest that the tenant may use and that can do it.
    """

    template: str | None = Field(default=None, max_length=80)
    variables: dict[str, Any] | None = None
    messages: list[Turn] = Field(default_factory=list, max_length=10_000)
    model: str | None = Field(default=None, min_length=1, max_length=253)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)


class EmbedAsk(Wire):
    """What to embed. Without a model, the cheapest that the tenant may use does it."""

    input: str | list[str]
    model: str | None = Field(default=None, min_length=1, max_length=253)


@router.post("/complete")
async def complete_plainly(request: Request, deps: Deps, caller: Completer) -> Response:
    """``{content, model, usage, cached}``."""
    prompt = await _prompt(deps, request, caller, stream=False)
    order = await _order(deps, request, caller, prompt)
    answer = await complete(deps, order, prompt.body)
    made = orjson.loads(answer.body)
    content = made["choices"][0]["message"]["content"]
    hit = answer.headers.get("x-loam-cache") == "hit"
    plain = {"content": content, "model": made["model"], "usage": _usage(made["usage"]), "cached": hit}
    return respond(Answer(orjson.dumps(plain), answer.headers | prompt.headers))


@router.post("/stream")
async def stream_plainly(request: Request, deps: Deps, caller: Completer) -> Response:
    """The events ``token``, ``usage``, ``done`` and ``error``."""
    return await resumable(deps, request, caller, partial(_streamed, request, deps, caller))


async def _streamed(request: Request, deps: State, caller: Principal) -> Response:
    prompt = await _prompt(deps, request, caller, stream=True)
    order = await _order(deps, request, caller, prompt)
    stream = ChatStream(deps, order, prompt.body, with_usage=True)
    events = _events(stream.chunks())
    try:
        first = await anext(events)
    except Replayed as replayed:
        kept = Answer.unsealed(deps.vault, replayed.answer)
        return respond(Answer(_replayed(kept.body), kept.headers | prompt.headers, kept.media_type))
    return EventStream(first, events, stream.headers | prompt.headers)


@router.post("/embed")
async def embed_plainly(request: Request, deps: Deps, caller: Embedder) -> Response:
    """``{embeddings, usage}``."""
    ask = parse(EmbedAsk, await request.body())
    model = ask.model or (await cheapest(deps.directory, await tenant_of(caller, deps), "Embed")).name
    order = await order_of(deps, request, caller, model=model, capabilities=("Embed",))
    answer = await embed(deps, order, EmbeddingRequest(model=model, input=ask.input))
    made = orjson.loads(answer.body)
    usage = {"inputTokens": made["usage"]["prompt_tokens"], "costUsd": made["usage"]["cost_usd"]}
    plain = {"embeddings": [vector["embedding"] for vector in made["data"]], "model": model, "usage": usage}
    return respond(Answer(orjson.dumps(plain), answer.headers))


@dataclass(frozen=True, slots=True)
class _Prompt:
    """An ask as a chat completion, and the template that it came from."""

    body: ChatRequest
    template: PromptTemplate | None

    @property
    def needs(self) -> tuple[str, ...]:
        """What a model must be capable of."""
        wanted = self.template.capabilities if self.template else ()
        return tuple(dict.fromkeys((*needs(self.body), *wanted)))

    @property
    def headers(self) -> dict[str, str]:
        """Which template it was, since a name alone stands for its latest version."""
        return {"x-loam-template": self.template.label} if self.template else {}


async def _order(deps: State, request: Request, caller: Principal, prompt: _Prompt) -> Order:
    order = await order_of(deps, request, caller, model=prompt.body.model, capabilities=prompt.needs)
    template = prompt.template
    return order if template is None else replace(order, cache=order.cache.of_template(template))


async def _prompt(deps: State, request: Request, caller: Principal, *, stream: bool) -> _Prompt:
    ask = parse(Ask, await request.body())
    template = await deps.templates.named(caller.tenant, ask.template) if ask.template is not None else None
    given = {"model": AUTO} | _filled(template, ask) | {"stream": stream}
    prompt = _Prompt(made(ChatRequest, given), template)
    body = await with_model(deps.directory, await tenant_of(caller, deps), prompt.body, prompt.needs)
    return replace(prompt, body=body)


def _filled(template: PromptTemplate | None, ask: Ask) -> dict[str, Any]:
    """The fields of a chat completion. What the call says wins over the template's defaults."""
    given = ask.model_dump(include={"model", "max_tokens", "temperature"}, exclude_none=True)
    messages = [turn.model_dump() for turn in ask.messages]
    if template is not None:
        own = template.model_dump(include={"model", "max_tokens", "temperature"}, exclude_none=True)
        if template.response_format is not None:
            own["response_format"] = template.response_format.model_dump(by_alias=True)
        return own | given | {"messages": [*render(template, ask.variables or {}), *messages]}
    if ask.variables is not None:
        raise InvalidRequestError("variables: they go with a template, and there is none", param="variables")
    if not messages:
        raise InvalidRequestError("messages: write at least one, or name a template", param="messages")
    return given | {"messages": messages}


async def _events(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            if event := _event(chunk):
                yield event
    yield _DONE


def _replayed(frames: bytes) -> bytes:
    """The events of an answer that was kept as OpenAI's frames."""
    data = (event.removeprefix(b"data: ") for event in frames.split(b"\n\n"))
    return b"".join(_event(orjson.loads(chunk)) for chunk in data if chunk.startswith(b"{")) + _DONE


def _event(chunk: Chunk) -> bytes:
    """One of OpenAI's chunks as an event of ours; nothing for one that says nothing here."""
    if usage := chunk.get("usage"):
        return frame(_usage(usage), "usage")
    texts = [choice["delta"].get("content") for choice in chunk["choices"]]
    return frame({"text": texts[0]}, "token") if texts and texts[0] else b""


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputTokens": usage["prompt_tokens"],
        "outputTokens": usage["completion_tokens"],
        "costUsd": usage["cost_usd"],
    }
