"""Holds for chats. A bound from bytes is generous; where it does not fit the budget, the provider counts the tokens."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from loam_gateway.ledger.model import Kind
from loam_gateway.metering.calls import Call
from loam_gateway.metering.charge import Charge, Quote, charged
from loam_gateway.metering.order import Order
from loam_gateway.state import State
from loam_shared.errors import BudgetExceededError

# Below this a count could not save what it takes to ask for it.
_WORTH_COUNTING_TOKENS = 1_000


@contextlib.asynccontextmanager
async def charged_chat(deps: State, order: Order, call: Call, kind: Kind) -> AsyncIterator[Charge]:
    """As `charged`, for `call`. Raises BudgetExceededError only where what the provider counts does not fit either."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            charge = await stack.enter_async_context(_charged(deps, order, call.quote, kind))
        except BudgetExceededError:
            counted = await _counted(deps, call)
            if counted is None:
                raise
            charge = await stack.enter_async_context(_charged(deps, order, counted, kind))
        yield charge


def _charged(deps: State, order: Order, quote: Quote, kind: Kind) -> contextlib.AbstractAsyncContextManager[Charge]:
    return charged(deps.ledger, deps.metrics, order.hold_request(quote, kind), quote, order.slot)


async def _counted(deps: State, call: Call) -> Quote | None:
    """The quote with the tokens as the provider counts them, if it does and they are fewer."""
    body = call.chat.countable()
    if body is None or call.quote.input_tokens < _WORTH_COUNTING_TOKENS:
        return None
    tokens = await deps.provider.count(call.quote, body)
    if tokens is None or not 0 < tokens < call.quote.input_tokens:
        return None
    return replace(call.quote, input_tokens=tokens)
