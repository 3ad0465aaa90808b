"""Serving an answer that the cache has, and giving it one: an entry that costs nothing, and says what was saved."""

from dataclasses import replace
from typing import Any

import orjson

from loam_gateway.cache.entry import LARGEST, Cached
from loam_gateway.cache.key import key_of
from loam_gateway.cache.room import Turn
from loam_gateway.cache.twin import Listener
from loam_gateway.completions.reply import Heading, Said, completion
from loam_gateway.completions.request import ChatRequest
from loam_gateway.ledger.model import Kind, Posting, Replay, Settlement
from loam_gateway.metering.answers import Answer, cost_headers
from loam_gateway.metering.calls import Call
from loam_gateway.metering.charge import Charge, Replayed
from loam_gateway.metering.order import Order
from loam_gateway.state import State
from loam_shared.money import NANOS_PER_USD

_FALLBACK_SECONDS = 10
# What was changed about the request stays true; what was left of a budget does not.
_LASTING_HEADERS = ("x-loam-model", "x-loam-dropped-params")


def cache_key(order: Order, request: ChatRequest) -> bytes:
    """What the answer to this request is kept under; nothing when it is not to be kept."""
    if not order.cache.seconds:
        return b""
    named = order.models[0]
    return key_of(order.tenant.uid, named.name, named.model_id, request, order.cache.template)


def turn_of(deps: State, order: Order, request: ChatRequest, *, alone: bool = False) -> Turn:
    """The turn of a call. A stream takes it alone: its caller wants the first word soon, not another's last."""
    return deps.cache.turn(cache_key(order, request), order.cache, alone=alone)


def listener_of(order: Order) -> Listener:
    """What puts a stream together for the cache, if that wants it."""
    return Listener(LARGEST if order.cache.seconds else -1)


def cacheable(charge: Charge, said: Said, usage: dict[str, Any], headers: dict[str, str]) -> Cached | None:
    """The posted answer for others to come; None when it is not as whole as they may expect.

    Where the budget had no room for all that was asked for, an answer that ran out of room was cut short for this
    caller alone.
    """
    if said.finish == "length" and charge.hold.max_output_tokens < charge.quote.output_tokens:
        return None
    assert charge.posting is not None
    lasting = {name: headers[name] for name in _LASTING_HEADERS if name in headers}
    return Cached(said.message, said.finish, usage, charge.quote.model.name, charge.posting.cost_nanos, lasting)


def offer(turn: Turn, order: Order, cached: Cached | None) -> None:
    """Give a posted answer to those who wait for it, and to those to come."""
    if cached is None:
        turn.let_go()
    else:
        turn.keep(cached, seconds_of(order, cached))


def seconds_of(order: Order, cached: Cached) -> int:
    """How long it is kept: another model's answer only over the worst of an outage."""
    named = cached.model == order.models[0].name
    return order.cache.seconds if named else min(order.cache.seconds, _FALLBACK_SECONDS)


async def completion_from(deps: State, order: Order, request: ChatRequest, call: Call, cached: Cached) -> Answer:
    """A plain answer from the cache, posted. Raises as `posted` does."""
    said, usage = Said(cached.message, cached.finish, None), free(cached)
    answer = Answer(orjson.dumps(completion(Heading.new(request.model), said, usage)), hit_headers(cached))
    kept = answer.sealed(deps.vault) if order.claim else None
    posting = await posted(deps, order, call, cached, kept)
    return answer.with_headers(cost_headers(posting))


async def posted(deps: State, order: Order, call: Call, cached: Cached, answer: bytes | None) -> Posting:
    """The entry of a hit; `answer` is kept for the Idempotency-Key. Raises Replayed, and as Ledger.record does."""
    request = replace(
        order.hold_request(call.quote, Kind.CACHE_HIT),
        fixed_nanos=0,
        output_nanos_per_million=0,
        max_output_tokens=0,
        min_output_tokens=0,
    )
    settlement = Settlement(
        cost_nanos=0,
        saving_nanos=cached.cost_nanos,
        provider=call.quote.model.provider,
        model=cached.model,
        answer=answer,
    )
    posting = await deps.ledger.record(request, settlement)
    if isinstance(posting, Replay):
        raise Replayed(posting.answer)
    deps.metrics.cache_saved_usd.labels(order.tenant.name, cached.model).inc(cached.cost_nanos / NANOS_PER_USD)
    return posting


def free(cached: Cached) -> dict[str, Any]:
    """The usage that is told: what the answer once took, and that it costs nothing now."""
    return cached.usage | {"cost_usd": "0"}


def hit_headers(cached: Cached) -> dict[str, str]:
    """What is known of a hit."""
    return cached.headers | {"x-loam-cache": "hit"}
