"""A chat request as each of its order's models would serve it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson

from loam_gateway.adapters.provider import Event, FailureKind, ProviderCallError, Reply
from loam_gateway.completions.dialect import ChatCall
from loam_gateway.completions.dialects import DIALECTS
from loam_gateway.completions.reply import Chunk, ChunkMaker, Said, Usage
from loam_gateway.completions.request import ChatRequest
from loam_gateway.directory.model import Model, Tenant
from loam_gateway.ledger.model import Tokens
from loam_gateway.metering import bounds
from loam_gateway.metering.answers import call_headers
from loam_gateway.metering.charge import Charge, Quote
from loam_gateway.metering.choice import prices_of
from loam_gateway.metering.order import Order
from loam_shared.errors import InvalidRequestError

_MISSHAPEN = (KeyError, IndexError, TypeError, AttributeError)
_NO_ANSWER = "the answer is not shaped as its provider's are"


@dataclass(frozen=True, slots=True)
class Call:
    """What to ask of one model, and what that may cost at most."""

    chat: ChatCall
    quote: Quote

    def body(self, order: Order, charge: Charge, *, stream: bool) -> bytes:
        """The provider's body, within what the ledger granted."""
        return self.chat.encoded(charge.hold.max_output_tokens, order.metadata(), stream=stream)

    def headers(self, request: ChatRequest, charge: Charge) -> dict[str, str]:
        """What is known of it once it is under way."""
        return call_headers(charge, asked_tokens=request.output_limit, dropped=self.chat.dropped)


def prepared(tenant: Tenant, request: ChatRequest, model: Model) -> Call:
    """The call of `model` on the account that is `tenant`'s for it. Raises LoamError for what it cannot be asked."""
    chat = DIALECTS[model.provider](request, model.model_id)
    if request.strict and chat.dropped:
        raise InvalidRequestError(f'the model "{model.name}" does not take {chat.dropped[0]}', param=chat.dropped[0])
    quote = Quote(
        model,
        prices_of(model),
        input_tokens=chat.input_bound,
        output_tokens=bounds.output_tokens(request.output_limit, model.max_output_tokens),
        api_key=tenant.own_key(model),
    )
    return Call(chat, quote)


def each(order: Order, request: ChatRequest, first: Call) -> Iterator[Call]:
    """The call of the model that was named, and those of its fallbacks, made when they are needed.

    A fallback that cannot be asked this is left out, and so is one on the platform's account when the named model is
    on the tenant's own.
    """
    yield first
    for model in order.models[1:]:
        if first.quote.free and order.own_key(model) is None:
            continue
        if call := _carried(order, request, model):
            yield call


def _carried(order: Order, request: ChatRequest, model: Model) -> Call | None:
    try:
        return prepared(order.tenant, request, model)
    except InvalidRequestError:
        return None


def read(call: Call, reply: Reply) -> Said:
    """What `reply` says. Raises ProviderCallError for what is no answer."""
    try:
        return call.chat.said(reply.body)
    except _MISSHAPEN as error:
        raise ProviderCallError(FailureKind.BROKEN_OFF, f"{_NO_ANSWER}: {error!r}", reply.request_id) from error


def read_event(maker: ChunkMaker, event: Event) -> Iterable[Chunk]:
    """The chunks of `event`. Raises ProviderCallError for what is none of the provider's events."""
    try:
        return maker.chunks(event.name, event.payload)
    except _MISSHAPEN as error:
        raise ProviderCallError(FailureKind.BROKEN_OFF, f"{_NO_ANSWER}: {error!r}") from error


def used(charge: Charge, known: Usage | None, output_bytes: int) -> Usage:
    """What to charge for an answer that came to its end: without the provider's word the bounds, marked as such."""
    if known is not None:
        return known
    charge.estimated = True
    output = min(output_bytes, charge.hold.max_output_tokens)
    return Usage(Tokens(input=charge.quote.input_tokens, output=output))


def message_bytes(message: dict[str, object]) -> int:
    """How long a whole answer is."""
    return len(orjson.dumps(message))
