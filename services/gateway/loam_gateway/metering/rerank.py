"""Rankings from order to entry, priced by queries."""

import time
from functools import partial

import orjson

from loam_gateway.adapters.provider import Client, FailureKind, ProviderCallError, Reply, Target
from loam_gateway.completions.rerank import RerankRequest, billed_queries, queries_of, ranking, rerank_body
from loam_gateway.ledger.model import Kind, Tokens
from loam_gateway.metering.answers import Answer, call_headers, cost_headers
from loam_gateway.metering.charge import Charge, Quote, Replayed, charged
from loam_gateway.metering.choice import prices_of
from loam_gateway.metering.failures import told
from loam_gateway.metering.limits import admitted
from loam_gateway.metering.order import Order
from loam_gateway.state import State
from loam_shared.errors import InvalidRequestError
from loam_shared.money import format_usd


async def rerank(deps: State, order: Order, request: RerankRequest) -> Answer:
    """The ranking, posted. Only the named model is asked. Raises LoamError."""
    model = order.models[0]
    if model.provider != "Bedrock":
        raise InvalidRequestError(f'the model "{model.name}" is none of Bedrock\'s rerankers', param="model")
    body = orjson.dumps(rerank_body(request, model_id=model.model_id))
    queries, _ = queries_of(request)
    quote = Quote(model, prices_of(model), input_tokens=0, queries=queries, api_key=order.own_key(model))
    async with admitted(deps.redis, deps.metrics, order.tenant, order.caller, tokens=len(body) // 4):
        order.slot.give_back()
        try:
            return await _rerank(deps, order, request, quote, body)
        except Replayed as replayed:
            return Answer.unsealed(deps.vault, replayed.answer)
        except ProviderCallError as error:
            raise told(error) from error


async def _rerank(deps: State, order: Order, request: RerankRequest, quote: Quote, body: bytes) -> Answer:
    begun = time.perf_counter()
    hold = order.hold_request(quote, Kind.RERANK)
    async with charged(deps.ledger, deps.metrics, hold, quote, order.slot) as charge:
        reply = await deps.provider.call(charge, partial(_invoke, body))
        tokens = Tokens(queries=_queries(charge, request, reply))
        answer = _answer(request, charge, reply, tokens)
        posting = await charge.settle(tokens, answer=answer.sealed(deps.vault) if order.claim else None)
    deps.metrics.own_seconds.labels("rerank").observe(time.perf_counter() - begun - charge.provider_seconds)
    return answer.with_headers(cost_headers(posting))


async def _invoke(body: bytes, client: Client, target: Target) -> Reply:
    return await client.invoke(target, body)


def _queries(charge: Charge, request: RerankRequest, reply: Reply) -> int:
    told_queries = billed_queries(reply.body)
    if told_queries is not None:
        return told_queries
    queries, exact = queries_of(request)
    charge.estimated = not exact
    return queries


def _answer(request: RerankRequest, charge: Charge, reply: Reply, tokens: Tokens) -> Answer:
    cost = format_usd(charge.cost_nanos(tokens))
    try:
        body = ranking(reply.body, model=request.model, queries=tokens.queries, cost_usd=cost)
    except (KeyError, TypeError) as error:
        message = f"the ranking is not shaped as its provider's are: {error!r}"
        raise ProviderCallError(FailureKind.BROKEN_OFF, message, reply.request_id) from error
    return Answer(orjson.dumps(body), call_headers(charge))
