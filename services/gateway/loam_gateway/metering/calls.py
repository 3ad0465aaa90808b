"""A chat request as each of its order's models would serve it."""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from loam_gateway.completions.dialect import ChatCall
from loam_gateway.completions.dialects import DIALECTS
from loam_gateway.completions.reply import Usage
from loam_gateway.completions.request import ChatRequest
from loam_gateway.directory.model import Model
from loam_gateway.ledger.model import Tokens
from loam_gateway.metering import bounds
from loam_gateway.metering.answers import call_headers
from loam_gateway.metering.charge import Charge, Quote
from loam_gateway.metering.choice import prices_of
from loam_gateway.metering.order import Order


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


def prepared(order: Order, request: ChatRequest, model: Model) -> Call:
    """The call of `model`. Raises LoamError for what it cannot be asked."""
    chat = DIALECTS[model.provider](request, model.model_id)
    quote = Quote(
        model,
        prices_of(model),
        input_tokens=chat.input_bound,
        output_tokens=bounds.output_tokens(request.output_limit, model.max_output_tokens),
        api_key=order.tenant.own_keys.get(model.provider),
    )
    return Call(chat, quote)


def each(order: Order, request: ChatRequest, first: Call) -> Iterator[Call]:
    """The call of the model that was named, and those of its fallbacks, made when they are needed."""
    yield first
    for model in order.models[1:]:
        yield prepared(order, request, model)


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
