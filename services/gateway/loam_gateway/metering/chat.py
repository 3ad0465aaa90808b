"""A chat completion from order to entry, plain or streamed."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from loam_gateway.adapters.bedrock import RETRYABLE, Bedrock, BedrockError, Event, FailureKind, Target
from loam_gateway.completions.answer import Heading, completion, tokens_of, usage_of
from loam_gateway.completions.converse import ConverseCall, to_converse
from loam_gateway.completions.request import ChatRequest
from loam_gateway.completions.stream import ChunkMaker
from loam_gateway.directory.model import Model
from loam_gateway.ledger.model import Kind, Tokens
from loam_gateway.metering import bounds
from loam_gateway.metering.answers import Answer, call_headers, cost_headers, remaining_header
from loam_gateway.metering.charge import Charge, Quote, Replayed, charged
from loam_gateway.metering.choice import prices_of
from loam_gateway.metering.failures import told
from loam_gateway.metering.limits import Permit, admitted
from loam_gateway.metering.order import Order
from loam_gateway.sse import frame
from loam_gateway.state import State

_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class _Call:
    """A chat request as one of the order's models would serve it."""

    converse: ConverseCall
    quote: Quote


def _prepared(order: Order, request: ChatRequest, model: Model) -> _Call:
    converse = to_converse(request, model_id=model.model_id)
    quote = Quote(
        model,
        prices_of(model),
        input_tokens=bounds.input_tokens(converse.body),
        output_tokens=bounds.output_tokens(request.output_limit, model.max_output_tokens),
        api_key=order.tenant.own_keys.get(model.provider),
    )
    return _Call(converse, quote)


def _calls(order: Order, request: ChatRequest, first: _Call) -> Iterator[_Call]:
    """The call of the model that was named, and those of its fallbacks, made when they are needed."""
    yield first
    for model in order.models[1:]:
        yield _prepared(order, request, model)


async def complete(deps: State, order: Order, request: ChatRequest) -> Answer:
    """The whole answer, posted. Raises LoamError."""
    first = _prepared(order, request, order.models[0])
    estimate = bounds.estimate_tokens(first.quote.input_tokens)
    async with admitted(deps.limits, deps.metrics, order.tenant, order.caller, tokens=estimate) as permit:
        try:
            return await _complete_with_any(deps, order, request, first, permit)
        except Replayed as replayed:
            return Answer.unsealed(deps.vault, replayed.answer)


async def _complete_with_any(deps: State, order: Order, request: ChatRequest, first: _Call, permit: Permit) -> Answer:
    failure: BedrockError | None = None
    for call in _calls(order, request, first):
        try:
            return await _complete_with(deps, order, request, call, permit)
        except BedrockError as error:
            failure = error
            if error.kind not in RETRYABLE:
                break
    assert failure is not None
    raise told(failure) from failure


async def _complete_with(deps: State, order: Order, request: ChatRequest, call: _Call, permit: Permit) -> Answer:
    begun = time.perf_counter()
    hold = order.hold_request(call.quote, Kind.COMPLETION)
    async with charged(deps.ledger, deps.metrics, hold, call.quote) as charge:
        body = _body(order, call, charge)
        reply = await deps.provider.call(charge, lambda bedrock, target: bedrock.converse(target, body))
        tokens = tokens_of(reply.body["usage"])
        permit.tokens = _total(tokens)
        answer = _answer(request, call, charge, reply.body, tokens)
        kept = answer.sealed(deps.vault) if order.claim else None
        posting = await charge.settle(tokens, answer=kept)
    deps.metrics.own_seconds.labels("chat").observe(time.perf_counter() - begun - charge.provider_seconds)
    return answer.with_headers(cost_headers(posting))


def _body(order: Order, call: _Call, charge: Charge) -> dict[str, Any]:
    return call.converse.with_limit(charge.hold.max_output_tokens) | {"requestMetadata": order.metadata()}


def _answer(request: ChatRequest, call: _Call, charge: Charge, reply: dict[str, Any], tokens: Tokens) -> Answer:
    usage = usage_of(tokens, charge.cost_nanos(tokens))
    body = completion(Heading.new(request.model), reply, json_answer=call.converse.json_answer, usage=usage)
    return Answer(orjson.dumps(body), _headers(request, call, charge))


def _headers(request: ChatRequest, call: _Call, charge: Charge) -> dict[str, str]:
    return call_headers(charge, asked_tokens=request.output_limit, dropped=call.converse.dropped)


def _total(tokens: Tokens) -> int:
    return tokens.input + tokens.output + tokens.cache_read + tokens.cache_write


class ChatStream:
    """A streamed answer. `headers` are there once the first frame is."""

    def __init__(self, deps: State, order: Order, request: ChatRequest, *, with_usage: bool) -> None:
        self._deps = deps
        self._order = order
        self._request = request
        self._with_usage = with_usage
        self._begun = False
        self.headers: dict[str, str] = {}

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; what was used is posted before the last ones.

        Before the first frame it raises as `complete` does, and Replayed; after that LoamError when it was cut.
        """
        deps, order = self._deps, self._order
        first = _prepared(order, self._request, order.models[0])
        estimate = bounds.estimate_tokens(first.quote.input_tokens)
        async with (
            admitted(deps.limits, deps.metrics, order.tenant, order.caller, tokens=estimate) as permit,
            contextlib.aclosing(self._frames_of_any(first, permit)) as frames,
        ):
            async for data in frames:
                yield data

    async def _frames_of_any(self, first: _Call, permit: Permit) -> AsyncGenerator[bytes, None]:
        failure: BedrockError | None = None
        for call in _calls(self._order, self._request, first):
            try:
                async with contextlib.aclosing(self._frames_of(call, permit)) as frames:
                    async for data in frames:
                        yield data
            except BedrockError as error:
                failure = error
                if self._begun or error.kind not in RETRYABLE:
                    break
            else:
                return
        assert failure is not None
        raise told(failure) from failure

    async def _frames_of(self, call: _Call, permit: Permit) -> AsyncGenerator[bytes, None]:
        deps, begun = self._deps, time.perf_counter()
        hold = self._order.hold_request(call.quote, Kind.STREAM)
        async with (
            charged(deps.ledger, deps.metrics, hold, call.quote) as charge,
            contextlib.AsyncExitStack() as stack,
        ):
            opening = partial(_opened, stack, _body(self._order, call, charge))
            events = await deps.provider.call(charge, opening)
            deps.metrics.own_seconds.labels("stream").observe(time.perf_counter() - begun - charge.provider_seconds)
            self._begin(call, charge)
            maker = ChunkMaker(Heading.new(self._request.model), call.converse.json_answer)
            kept: list[bytes] = []
            async for event in events:
                data = b"".join(frame(chunk) for chunk in maker.chunks(event.name, event.payload))
                charge.output_bytes, charge.tokens = maker.output_bytes, maker.tokens
                if self._order.claim:
                    kept.append(data)
                if data:
                    yield data
            yield await self._end(charge, maker, kept, permit)

    def _begin(self, call: _Call, charge: Charge) -> None:
        self._begun = True
        self.headers = _headers(self._request, call, charge) | remaining_header(charge.hold.remaining_nanos)

    async def _end(self, charge: Charge, maker: ChunkMaker, kept: list[bytes], permit: Permit) -> bytes:
        """Post what was used, and only then the last frames."""
        tokens = maker.tokens
        if tokens is None or not maker.last:
            raise BedrockError(FailureKind.BROKEN_OFF, "the model's answer broke off")
        permit.tokens = _total(tokens)
        last = [frame(chunk) for chunk in maker.last]
        if self._with_usage:
            last.append(frame(maker.usage_chunk(usage_of(tokens, charge.cost_nanos(tokens)))))
        ending = b"".join([*last, _DONE])
        await charge.settle(tokens, answer=self._sealed([*kept, ending]) if self._order.claim else None)
        return ending

    def _sealed(self, frames: list[bytes]) -> bytes:
        """The whole answer, as it is kept for the Idempotency-Key."""
        return Answer(b"".join(frames), self.headers, "text/event-stream").sealed(self._deps.vault)


async def _opened(
    stack: contextlib.AsyncExitStack, body: dict[str, Any], bedrock: Bedrock, target: Target
) -> AsyncIterator[Event]:
    """A stream whose first event is there: until then another region may still be tried."""
    events = await stack.enter_async_context(bedrock.converse_stream(target, body))
    return _again(await anext(events), events)


async def _again(first: Event, rest: AsyncIterator[Event]) -> AsyncIterator[Event]:
    yield first
    async for event in rest:
        yield event
