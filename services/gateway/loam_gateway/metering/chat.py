"""A chat completion from order to entry, plain or streamed."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any

import orjson

from loam_gateway.adapters.provider import RETRYABLE, Client, Event, FailureKind, ProviderCallError, Reply, Target
from loam_gateway.cache.entry import Cached
from loam_gateway.cache.room import Turn
from loam_gateway.cache.twin import Listener, chunks_of
from loam_gateway.completions.reply import Chunk, ChunkMaker, Heading, Said, completion, usage_of
from loam_gateway.completions.request import ChatRequest
from loam_gateway.ledger.model import Kind, Tokens
from loam_gateway.metering import bounds, calls, reuse, traces
from loam_gateway.metering.answers import Answer, cost_headers, remaining_header
from loam_gateway.metering.calls import Call
from loam_gateway.metering.charge import Charge, Replayed
from loam_gateway.metering.counted import charged_chat
from loam_gateway.metering.failures import told
from loam_gateway.metering.hedge import hedged
from loam_gateway.metering.limits import Permit, admitted
from loam_gateway.metering.order import Order
from loam_gateway.sse import frame
from loam_gateway.state import State

_DONE = b"data: [DONE]\n\n"


async def complete(deps: State, order: Order, request: ChatRequest) -> Answer:
    """The whole answer, posted. Raises LoamError."""
    first = calls.prepared(order.tenant, request, order.models[0])
    estimate = bounds.estimate_tokens(first.quote.input_tokens)
    with reuse.turn_of(deps, order, request) as turn:
        async with admitted(deps.redis, deps.metrics, order.tenant, order.caller, tokens=estimate) as permit:
            order.slot.give_back()
            try:
                cached = await turn.answer()
                if cached is None:
                    return await _complete_with_any(deps, order, request, first, permit, turn)
                permit.tokens = 0
                return await reuse.completion_from(deps, order, request, first, cached)
            except Replayed as replayed:
                return Answer.unsealed(deps.vault, replayed.answer)


async def _complete_with_any(
    deps: State, order: Order, request: ChatRequest, first: Call, permit: Permit, turn: Turn
) -> Answer:
    attempt = partial(_complete_with, deps, order, request, permit, turn)
    # With an Idempotency-Key there is one provider call, whatever it takes.
    patience = 0 if order.claim else deps.settings.hedge_seconds
    failure: ProviderCallError | None = None
    for call in deps.provider.promising(calls.each(order, request, first)):
        try:
            return await hedged(attempt, call, patience)
        except ProviderCallError as error:
            failure = error
            if error.kind not in RETRYABLE:
                break
    assert failure is not None
    raise told(failure) from failure


async def _complete_with(
    deps: State, order: Order, request: ChatRequest, permit: Permit, turn: Turn, call: Call
) -> Answer:
    begun = time.perf_counter()
    async with charged_chat(deps, order, call, Kind.COMPLETION) as charge:
        body = call.body(order, charge, stream=False)
        reply = await deps.provider.call(charge, partial(_whole, body))
        said = calls.read(call, reply)
        traces.finished(charge.span, said.finish)
        usage = calls.used(charge, said.usage, 0 if said.usage else calls.message_bytes(said.message))
        permit.tokens = _total(usage.tokens)
        told_usage = usage_of(usage, charge.cost_nanos(usage.tokens))
        answer = _answer(request, call, charge, said, told_usage)
        kept = answer.sealed(deps.vault) if order.claim else None
        posting = await charge.settle(usage.tokens, answer=kept)
        reuse.offer(turn, order, reuse.cacheable(charge, said, told_usage, answer.headers))
    deps.metrics.own_seconds.labels("chat").observe(time.perf_counter() - begun - charge.provider_seconds)
    return answer.with_headers(cost_headers(posting))


async def _whole(body: bytes, client: Client, target: Target) -> Reply:
    return await client.complete(target, body)


def _answer(request: ChatRequest, call: Call, charge: Charge, said: Said, usage: dict[str, Any]) -> Answer:
    body = completion(Heading.new(request.model), said, usage)
    return Answer(orjson.dumps(body), call.headers(request, charge))


def _total(tokens: Tokens) -> int:
    return tokens.input + tokens.output + tokens.cache_read + tokens.cache_write


class ChatStream:
    """A streamed answer. `headers` are there once the first frame, or chunk, is. It is read once."""

    def __init__(self, deps: State, order: Order, request: ChatRequest, *, with_usage: bool) -> None:
        self._deps = deps
        self._order = order
        self._request = request
        self._with_usage = with_usage
        self._begun = False
        self.headers: dict[str, str] = {}

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events. Raises as `chunks` does."""
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                yield frame(chunk)
        yield _DONE

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The answer's chunks; what was used is posted before the last ones.

        Before the first chunk it raises as `complete` does, and Replayed, whose answer holds the frames of then; after
        that LoamError when it was cut. Closing it ends the provider's call and settles it.
        """
        deps, order = self._deps, self._order
        first = calls.prepared(order.tenant, self._request, order.models[0])
        estimate = bounds.estimate_tokens(first.quote.input_tokens)
        with reuse.turn_of(deps, order, self._request, alone=True) as self._turn:
            async with admitted(deps.redis, deps.metrics, order.tenant, order.caller, tokens=estimate) as permit:
                order.slot.give_back()
                cached = await self._turn.answer()
                if cached is not None:
                    permit.tokens = 0
                    for chunk in await self._from_cache(first, cached):
                        yield chunk
                    return
                async with contextlib.aclosing(self._chunks_of_any(first, permit)) as chunks:
                    async for chunk in chunks:
                        yield chunk

    async def _from_cache(self, call: Call, cached: Cached) -> list[Chunk]:
        """All chunks of an answer that was given before; its entry is posted."""
        usage = reuse.free(cached) if self._with_usage else None
        chunks = list(chunks_of(Heading.new(self._request.model), cached.message, cached.finish, usage))
        self.headers = reuse.hit_headers(cached)
        answer = self._sealed(chunks) if self._order.claim else None
        self.headers |= cost_headers(await reuse.posted(self._deps, self._order, call, cached, answer))
        return chunks

    async def _chunks_of_any(self, first: Call, permit: Permit) -> AsyncGenerator[Chunk, None]:
        failure: ProviderCallError | None = None
        for call in self._deps.provider.promising(calls.each(self._order, self._request, first)):
            try:
                async with contextlib.aclosing(self._chunks_of(call, permit)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except ProviderCallError as error:
                failure = error
                if self._begun or error.kind not in RETRYABLE:
                    break
            else:
                return
        assert failure is not None
        raise told(failure) from failure

    async def _chunks_of(self, call: Call, permit: Permit) -> AsyncGenerator[Chunk, None]:
        deps, begun = self._deps, time.perf_counter()
        async with (
            charged_chat(deps, self._order, call, Kind.STREAM) as charge,
            contextlib.AsyncExitStack() as stack,
        ):
            opening = partial(_opened, stack, call.body(self._order, charge, stream=True))
            events = await deps.provider.call(charge, opening)
            deps.metrics.own_seconds.labels("stream").observe(time.perf_counter() - begun - charge.provider_seconds)
            traces.begun_to_answer(charge.span, time.perf_counter() - begun)
            self._begin(call, charge)
            maker = call.chat.chunk_maker(Heading.new(self._request.model))
            kept: list[Chunk] = []
            listener = reuse.listener_of(self._order)
            async for event in events:
                made = calls.read_event(maker, event)
                charge.output_bytes = maker.output_bytes
                charge.tokens = maker.usage.tokens if maker.usage else None
                for chunk in made:
                    listener.hear(chunk)
                    if self._order.claim:
                        kept.append(chunk)
                    yield chunk
            for chunk in await self._end(charge, maker, kept, listener, permit):
                yield chunk

    def _begin(self, call: Call, charge: Charge) -> None:
        self._begun = True
        self.headers = call.headers(self._request, charge) | remaining_header(charge.hold.remaining_nanos)

    async def _end(
        self, charge: Charge, maker: ChunkMaker, kept: list[Chunk], listener: Listener, permit: Permit
    ) -> list[Chunk]:
        """Post what was used, offer the answer to the cache, and only then give the last chunks."""
        if not maker.last:
            raise ProviderCallError(FailureKind.BROKEN_OFF, "the model's answer broke off")
        traces.finished(charge.span, maker.last[0]["choices"][0]["finish_reason"])
        usage = calls.used(charge, maker.usage, maker.output_bytes)
        permit.tokens = _total(usage.tokens)
        told_usage = usage_of(usage, charge.cost_nanos(usage.tokens))
        last = [*maker.last, maker.usage_chunk(told_usage)] if self._with_usage else maker.last
        await charge.settle(usage.tokens, answer=self._sealed([*kept, *last]) if self._order.claim else None)
        for chunk in maker.last:
            listener.hear(chunk)
        if message := listener.message():
            self._offer(charge, Said(message, listener.finish, usage), told_usage)
        return last

    def _offer(self, charge: Charge, said: Said, told_usage: dict[str, Any]) -> None:
        """Give the posted answer to the cache."""
        cached = reuse.cacheable(charge, said, told_usage, self.headers)
        if cached is not None:
            self._turn.keep(cached, reuse.seconds_of(self._order, cached))

    def _sealed(self, chunks: list[Chunk]) -> bytes:
        """The whole answer, as it is kept for the Idempotency-Key."""
        frames = b"".join([*map(frame, chunks), _DONE])
        return Answer(frames, self.headers, "text/event-stream").sealed(self._deps.vault)


async def _opened(
    stack: contextlib.AsyncExitStack, body: bytes, client: Client, target: Target
) -> AsyncIterator[Event]:
    """A stream whose first event is there: until then another region may still be tried."""
    events = await stack.enter_async_context(client.stream(target, body))
    return _again(await anext(events), events)


async def _again(first: Event, rest: AsyncIterator[Event]) -> AsyncIterator[Event]:
    yield first
    async for event in rest:
        yield event
