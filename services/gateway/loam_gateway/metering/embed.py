"""Embeddings from order to entry: one hold and one entry for the whole batch."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial

import orjson

from loam_gateway.adapters.provider import MAYBE_BILLED, Client, FailureKind, ProviderCallError, Reply, Target
from loam_gateway.completions.embeddings import Batch, EmbeddingRequest, batches, embedding_list, tokens_in, vectors_of
from loam_gateway.ledger.model import Kind, Tokens
from loam_gateway.metering.answers import Answer, call_headers, cost_headers
from loam_gateway.metering.charge import Charge, Quote, Replayed, charged
from loam_gateway.metering.choice import prices_of
from loam_gateway.metering.failures import told
from loam_gateway.metering.limits import Permit, admitted
from loam_gateway.metering.order import Order
from loam_gateway.state import State
from loam_shared.money import format_usd

_AT_ONCE = 16


async def embed(deps: State, order: Order, request: EmbeddingRequest) -> Answer:
    """The vectors, posted. Only the named model is asked: another one's vectors mean something else.

    Raises LoamError; what was billed until then is posted all the same.
    """
    work, quote = _plan(order, request)
    estimate = quote.input_tokens // 4
    async with admitted(deps.redis, deps.metrics, order.tenant, order.caller, tokens=estimate) as permit:
        order.slot.give_back()
        try:
            return await _embed(deps, order, request, work, quote, permit)
        except Replayed as replayed:
            return Answer.unsealed(deps.vault, replayed.answer)
        except ProviderCallError as error:
            raise told(error) from error


def _plan(order: Order, request: EmbeddingRequest) -> tuple[list[Batch], Quote]:
    model = order.models[0]
    dimensions = request.dimensions or model.dimensions
    work = batches(request.texts, provider=model.provider, model_id=model.model_id, dimensions=dimensions)
    bound = sum(batch.token_bound for batch in work)
    return work, Quote(model, prices_of(model), input_tokens=bound, api_key=order.own_key(model))


async def _embed(
    deps: State, order: Order, request: EmbeddingRequest, work: list[Batch], quote: Quote, permit: Permit
) -> Answer:
    begun = time.perf_counter()
    hold = order.hold_request(quote, Kind.EMBEDDING)
    async with charged(deps.ledger, deps.metrics, hold, quote, order.slot) as charge:
        run = _Run(deps, charge, work)
        vectors = await run.vectors()
        tokens = Tokens(input=run.billed)
        permit.tokens = run.billed
        answer = _answer(request, charge, vectors, tokens)
        posting = await charge.settle(tokens, answer=answer.sealed(deps.vault) if order.claim else None)
    deps.metrics.own_seconds.labels("embed").observe(time.perf_counter() - begun - charge.provider_seconds)
    return answer.with_headers(cost_headers(posting))


def _answer(request: EmbeddingRequest, charge: Charge, vectors: list[list[float]], tokens: Tokens) -> Answer:
    body = embedding_list(
        vectors,
        model=request.model,
        encoding=request.encoding_format,
        tokens=tokens.input,
        cost_usd=format_usd(charge.cost_nanos(tokens)),
    )
    return Answer(orjson.dumps(body), call_headers(charge))


class _Run:
    """The provider calls of one batch, a few at once, and what they were billed for up to now."""

    def __init__(self, deps: State, charge: Charge, work: list[Batch]) -> None:
        self._deps = deps
        self._charge = charge
        self._work = work
        self._found: dict[int, list[list[float]]] = {}
        self._failure: ProviderCallError | None = None
        self.billed = 0

    async def vectors(self) -> list[list[float]]:
        """All vectors in order. After a failure nothing new is begun, and what was begun is still counted."""
        todo = iter(enumerate(self._work))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(self._work))):
                group.create_task(self._one_after_another(todo))
        if self._failure is not None:
            raise self._failure
        return [vector for index in range(len(self._work)) for vector in self._found[index]]

    async def _one_after_another(self, todo: Iterator[tuple[int, Batch]]) -> None:
        for index, batch in todo:
            if self._failure is not None:
                return
            try:
                reply = await self._deps.provider.call(self._charge, partial(_invoke, batch))
                self._found[index] = _vectors(batch, reply)
            except ProviderCallError as error:
                self._failure = error
                if error.kind in MAYBE_BILLED:
                    self._bill(batch.token_bound, estimated=True)
                return
            known = reply.input_tokens if reply.input_tokens is not None else tokens_in(reply.body)
            self._bill(batch.token_bound if known is None else known, estimated=known is None)

    def _bill(self, tokens: int, *, estimated: bool) -> None:
        self.billed += tokens
        self._charge.estimated |= estimated
        self._charge.tokens = Tokens(input=self.billed)


def _vectors(batch: Batch, reply: Reply) -> list[list[float]]:
    try:
        return vectors_of(reply.body, batch.texts)
    except ValueError as error:
        raise ProviderCallError(FailureKind.BROKEN_OFF, str(error), reply.request_id) from error


async def _invoke(batch: Batch, client: Client, target: Target) -> Reply:
    return await client.invoke(target, orjson.dumps(batch.body))
