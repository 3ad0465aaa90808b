"""Hedged calls: what one region does not answer in time, another is asked, too, and the first answer wins.

Both calls are paid for: each has a hold of its own, and the loser is ended and settled by what it may have been billed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from loam_gateway.metering.calls import Call

_Result = TypeVar("_Result")


async def hedged(attempt: Callable[[Call], Awaitable[_Result]], call: Call, seconds: float) -> _Result:
    """What `attempt` makes of `call`, or of the same call in other regions `seconds` later, if those are faster.

    Raises what the first attempt raises when neither succeeds. 0 seconds are for no hedge.
    """
    regions = call.quote.model.regions
    if not seconds or len(regions) < 2:
        return await attempt(call)
    attempts = [asyncio.ensure_future(attempt(call))]
    try:
        done, _ = await asyncio.wait(attempts, timeout=seconds)
        if not done:
            attempts.append(asyncio.ensure_future(attempt(_elsewhere(call))))
        return await _first_good(attempts)
    finally:
        for each in attempts:
            each.cancel()
        # A cancelled attempt settles what it held.
        await asyncio.gather(*attempts, return_exceptions=True)


def _elsewhere(call: Call) -> Call:
    first, *others = call.quote.model.regions
    model = replace(call.quote.model, regions=(*others, first))
    return replace(call, quote=replace(call.quote, model=model))


async def _first_good(attempts: Sequence[asyncio.Future[_Result]]) -> _Result:
    pending = set(attempts)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            if each.exception() is None:
                return each.result()
    return attempts[0].result()
