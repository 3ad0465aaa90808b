"""A hold and what becomes of it: exactly one settlement, whatever happens in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from loam_gateway.directory.model import Model
from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import Hold, HoldRequest, Outcome, Posting, Replay, Settlement, Tokens
from loam_gateway.metering import traces
from loam_gateway.metering.bounds import CUT_ALLOWANCE_TOKENS
from loam_gateway.metering.fairness import Slot
from loam_gateway.metering.pricing import PriceList
from loam_gateway.metrics import Metrics
from loam_shared import telemetry
from loam_shared.errors import DeadlineExceededError, IdempotencyPendingError, LoamError
from loam_shared.money import NANOS_PER_USD, price_of
from loam_shared.telemetry import Span

# No call lasts longer, however patient everyone is.
LONGEST_SECONDS = 600.0
# A hold is renewed after this part of its lifetime, so that two renewals may fail.
_RENEWED_AFTER = 1 / 3
# The call is cut when this part of it is over, so that the settlement still finds the hold.
_CUT_AFTER = 5 / 6
# How often, and how long, a request looks whether the first one with its Idempotency-Key was answered: it may be
# another gateway's, so the database is asked.
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.05, 0.5
_TWIN_PATIENCE_SECONDS = 60.0

_TOO_LONG = f"the call took longer than {LONGEST_SECONDS:g} s, or its hold on the budget could not be kept"
_log = structlog.get_logger()
_Result = TypeVar("_Result")


class Replayed(Exception):  # noqa: N818 - it is an answer that takes a short cut, not an error
    """The same request was answered before; `answer` is what was stored then."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Quote:
    """What a call of `model` may use at most. With an `api_key` it goes out on the tenant's own account, at no cost."""

    model: Model
    prices: PriceList
    input_tokens: int
    output_tokens: int = 0
    queries: int = 0
    api_key: str | None = field(default=None, repr=False)

    @property
    def free(self) -> bool:
        """Whether the platform pays nothing for it."""
        return self.api_key is not None

    @property
    def fixed_nanos(self) -> int:
        """The most that everything but the output can cost."""
        price = self.prices.dearest(self.input_tokens)
        dearest = max(price.input, price.cache_read, price.cache_write)
        return 0 if self.free else price_of(self.input_tokens, dearest) + price_of(self.queries, price.queries)

    @property
    def output_nanos_per_million(self) -> int:
        """The dearest price that the output can get."""
        return 0 if self.free else self.prices.dearest(self.input_tokens).output


class Charge:
    """What one call of a model costs. The one who calls the model tells it what happens:

    `sent` when the provider may have begun to bill, `output_bytes` as output comes in, `tokens` once it is known what
    was used. Then `settle`; what was not settled is when the charge is closed.
    """

    def __init__(self, ledger: Ledger, metrics: Metrics, hold: Hold, quote: Quote, slot: Slot, span: Span) -> None:
        self._ledger = ledger
        self._slot = slot
        self._metrics = metrics
        self.hold = hold
        self.quote = quote
        self.span = span
        self.sent = False
        self.region = ""
        self.output_bytes = 0
        self.tokens: Tokens | None = None
        self.estimated = False
        self.provider_seconds = 0.0
        self.posting: Posting | None = None

    def cost_nanos(self, tokens: Tokens) -> int:
        """What `tokens` cost."""
        return 0 if self.quote.free else self.quote.prices.cost(tokens)[1]

    async def settle(self, tokens: Tokens, *, answer: bytes | None = None) -> Posting:
        """Post a call that came to its end; `answer` is kept for the Idempotency-Key."""
        return await self._post(replace(self._used(tokens), answer=answer))

    async def close(self) -> None:
        """Settle what was not: what is known to be used, else a bound, else nothing where nothing was billed."""
        if self.posting is None:
            await self._post(self._unsettled())

    def _unsettled(self) -> Settlement:
        if self.tokens is not None:
            return replace(self._used(self.tokens), outcome=Outcome.CUT)
        if self.sent:
            return self._cut()
        return Settlement(cost_nanos=0, outcome=Outcome.FAILED, model=self.quote.model.name)

    def _used(self, tokens: Tokens) -> Settlement:
        return Settlement(
            cost_nanos=self.cost_nanos(tokens),
            tokens=tokens,
            price=self.quote.prices.cost(tokens)[0],
            estimated=self.estimated,
            provider=self.quote.model.provider,
            region=self.region,
            model=self.quote.model.name,
        )

    def _cut(self) -> Settlement:
        output = min(self.output_bytes + CUT_ALLOWANCE_TOKENS, self.hold.max_output_tokens)
        bound = self.quote.fixed_nanos + price_of(output, self.quote.output_nanos_per_million)
        return Settlement(
            cost_nanos=min(bound, self.hold.nanos),
            tokens=Tokens(input=self.quote.input_tokens, output=output, queries=self.quote.queries),
            price=self.quote.prices.dearest(self.quote.input_tokens),
            outcome=Outcome.CUT,
            estimated=True,
            provider=self.quote.model.provider,
            region=self.region,
            model=self.quote.model.name,
        )

    async def _post(self, settlement: Settlement) -> Posting:
        with self.span.child("settle"):
            posting = await to_the_end(self._settled(settlement))
        self.posting = posting
        self._log(settlement, posting)
        traces.posted(self.span, settlement, posting)
        self._count(settlement, posting.cost_nanos)
        return posting

    async def _settled(self, settlement: Settlement) -> Posting:
        async with self._slot:
            return await self._ledger.settle(self.hold, settlement)

    def _log(self, settlement: Settlement, posting: Posting) -> None:
        """One line for each metered call, at the level `debug`: the ledger has all of it, and for good."""
        request = self.hold.request
        _log.debug(
            "posted",
            request_id=request.root_request_id,
            tenant=request.tenant,
            key_id=request.key_id,
            kind=request.kind.value,
            model=self.quote.model.name,
            region=settlement.region,
            outcome=settlement.outcome.value,
            cost_nanos=posting.cost_nanos,
            estimated=settlement.estimated,
            provider_ms=round(self.provider_seconds * 1000, 1),
        )

    def _count(self, settlement: Settlement, cost_nanos: int) -> None:
        tenant, model = self.hold.request.tenant, self.quote.model.name
        self._metrics.cost_usd.labels(tenant, model).inc(cost_nanos / NANOS_PER_USD)
        self._metrics.tokens.labels(tenant, model, "input").inc(settlement.tokens.input)
        self._metrics.tokens.labels(tenant, model, "output").inc(settlement.tokens.output)
        if settlement.outcome is Outcome.CUT:
            self._metrics.cut.labels(model).inc()


@contextlib.asynccontextmanager
async def charged(
    ledger: Ledger, metrics: Metrics, request: HoldRequest, quote: Quote, slot: Slot
) -> AsyncIterator[Charge]:
    """Hold what `quote` bounds for the time of the context, and settle it however the context ends.

    Raises what `Ledger.hold` raises, Replayed, and DeadlineExceededError when the hold could not be kept.
    """
    with telemetry.current().child("hold"):
        hold = await _held(ledger, request, slot)
    if isinstance(hold, Replay):
        raise Replayed(hold.answer)
    with metrics.holds.track_inprogress(), traces.call(request, quote.model) as span:
        charge = Charge(ledger, metrics, hold, quote, slot, span)
        try:
            async with _kept(ledger, hold):
                yield charge
        finally:
            await charge.close()


async def _held(ledger: Ledger, request: HoldRequest, slot: Slot) -> Hold | Replay:
    """The hold, or the answer that the first request with the same Idempotency-Key gets meanwhile.

    When that one ends without an answer, the next in line takes its place. Raises what `Ledger.hold` raises.
    """
    loop, pause = asyncio.get_running_loop(), _FIRST_LOOK_SECONDS
    deadline = loop.time() + _TWIN_PATIENCE_SECONDS
    while True:
        try:
            async with slot:
                return await ledger.hold(request)
        except IdempotencyPendingError:
            if loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_LOOK_SECONDS)


@contextlib.asynccontextmanager
async def _kept(ledger: Ledger, hold: Hold) -> AsyncIterator[None]:
    """Renew `hold` for the time of the context, and end the context when that fails before the hold expires."""
    loop, lifetime = asyncio.get_running_loop(), hold.request.lifetime_seconds
    try:
        async with asyncio.timeout(lifetime * _CUT_AFTER) as limit:
            # Nearly every call is over before its first renewal, so the task for it is made only then.
            renewals: list[asyncio.Task[None]] = []
            timer = loop.call_later(
                lifetime * _RENEWED_AFTER, lambda: renewals.append(asyncio.create_task(_renew(ledger, hold, limit)))
            )
            try:
                yield
            finally:
                timer.cancel()
                for renewal in renewals:
                    renewal.cancel()
    except TimeoutError as error:
        raise DeadlineExceededError(_TOO_LONG) from error


async def _renew(ledger: Ledger, hold: Hold, limit: asyncio.Timeout) -> None:
    loop, lifetime = asyncio.get_running_loop(), hold.request.lifetime_seconds
    end = loop.time() + LONGEST_SECONDS - lifetime
    while loop.time() < end:
        try:
            asked_at = loop.time()
            await ledger.renew(hold)
            limit.reschedule(asked_at + lifetime * _CUT_AFTER)
        except (LoamError, OSError) as error:
            _log.warning("a hold could not be renewed", request_id=str(hold.request.request_id), reason=str(error))
        await asyncio.sleep(lifetime * _RENEWED_AFTER)


async def to_the_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await `work` even when the one who awaits is cancelled meanwhile: the cancellation follows once it is done."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
