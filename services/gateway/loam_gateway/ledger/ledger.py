"""The ledger as the gateway uses it: hold, settle, renew, and what runs beside them."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import asyncpg
import structlog

from loam_gateway.adapters.postgres import FAILURES, Pool, is_transient
from loam_gateway.ledger import reports, verify
from loam_gateway.ledger.batcher import Batcher
from loam_gateway.ledger.clock import Clock
from loam_gateway.ledger.model import (
    Balance,
    Difference,
    Hold,
    HoldRequest,
    Policy,
    Posting,
    Replay,
    Settlement,
    UsageRow,
    new_request_id,
)
from loam_gateway.ledger.policies import set_policies
from loam_gateway.ledger.tickets import HoldTicket, RenewTicket, SettleTicket
from loam_shared.errors import BudgetExceededError, ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from loam_shared.money import price_of

# About a million dollars: no request costs that much, and sums of such stay far below what a bigint holds.
MAX_HOLD_NANOS = 2**50
_MONTHS_AHEAD = 3
_REAP_AT_ONCE = 256
_KEEP_MONTHS_SECONDS = 3600.0
_log = structlog.get_logger()


class Ledger:
    """Money of all tenants, as several gateways share it through one database.

    `patience` is how many seconds a caller waits for a hold, `reap_seconds` how often expired holds are looked for,
    and `retention_months` how long entries are kept. `batches` is told how many tickets each batch has.
    `clock_offset` shifts the database's clock, for tests.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        clock_offset: timedelta = timedelta(),
        patience: float = 10,
        reap_seconds: float = 5,
        retention_months: int = 24,
        batches: Callable[[int], object] = lambda _size: None,
    ) -> None:
        self._pool = pool
        self._clock = Clock(clock_offset)
        self._batcher = Batcher(pool, self._clock, batches)
        self._patience = patience
        self._reap_seconds = reap_seconds
        self._retention_months = retention_months
        self._upkeep: asyncio.Task[None] | None = None
        self._refusing: set[int] = set()

    @property
    def waiting(self) -> int:
        """How many tickets wait for the next batch."""
        return self._batcher.waiting

    async def start(self) -> None:
        """Begin to serve. Raises UnavailableError when the database's schema is not there."""
        try:
            await self._keep_months()
            self._clock.set(await self._pool.fetchval("SELECT clock_timestamp() + $1::interval", self._clock.offset))
        except asyncpg.UndefinedFunctionError as error:
            raise UnavailableError("the database has no ledger yet: run `python -m loam_gateway migrate`") from error
        self._batcher.start()
        self._upkeep = asyncio.create_task(self._keep_up(), name="ledger upkeep")

    async def close(self, drain_seconds: float = 5) -> None:
        """Post what is waiting, for at most `drain_seconds` seconds, and stop. What stays unposted expires."""
        if self._upkeep is not None:
            self._upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._upkeep
        await self._batcher.close(drain_seconds)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def hold(self, request: HoldRequest) -> Hold | Replay:
        """Take room for `request` under every cap that applies, or none of it.

        Raises BudgetExceededError (details cap, remainingUsd, resetsAt), ForbiddenError and InvalidApiKeyError when
        tenant or key may not spend, IdempotencyConflictError, and UnavailableError when the database does not answer.
        """
        ticket = HoldTicket(request, _bound(request))
        self._batcher.put(ticket)
        timer = asyncio.get_running_loop().call_later(self._patience, _give_up, ticket)
        try:
            return await ticket.done
        except BudgetExceededError:
            if ticket.refused_by is not None:
                self._refusing.add(ticket.refused_by)
            raise
        except asyncio.CancelledError:
            self._give_back(ticket)
            raise
        finally:
            timer.cancel()

    def take_refusing(self) -> set[int]:
        """Ids of the accounts that had too little room for a hold, since this was asked last."""
        taken, self._refusing = self._refusing, set()
        return taken

    def _give_back(self, ticket: HoldTicket) -> None:
        """Release a hold that was granted in the very moment in which its caller went away."""
        future = ticket.done
        if future.done() and not future.cancelled() and future.exception() is None:
            hold = future.result()
            if isinstance(hold, Hold):
                self._batcher.put(SettleTicket.release(hold))

    async def settle(self, hold: Hold, settlement: Settlement) -> Posting:
        """Post what became of `hold`; committed when it returns. Repeating it changes nothing.

        It is tried until it succeeds, also when the caller is cancelled. What comes too late, after the hold expired,
        returns what was posted then.
        """
        ticket = SettleTicket(hold, settlement)
        self._batcher.put(ticket)
        return await ticket.done

    async def record(self, request: HoldRequest, settlement: Settlement) -> Posting | Replay:
        """One entry for something that costs nothing, a cache hit say. Raises as `hold` does."""
        hold = await self.hold(request)
        return hold if isinstance(hold, Replay) else await self.settle(hold, settlement)

    async def renew(self, hold: Hold) -> None:
        """Give `hold` its lifetime anew, from now. Raises ConflictError when it has expired and been posted."""
        ticket = RenewTicket(hold, timedelta(seconds=hold.request.lifetime_seconds))
        self._batcher.put(ticket)
        if not await ticket.done:
            raise ConflictError("the hold has expired, and was posted whole")

    async def set_policy(self, *policies: Policy, actor: str = "operator") -> None:
        """Set caps, or take them away, in one transaction of its own. It may come before the tenant itself."""
        async with self._pool.acquire() as connection:
            await set_policies(connection, policies, actor=actor, clock_offset=self._clock.offset)

    async def correct(self, posted: Hold, delta_nanos: int, *, actor: str, reason: str) -> int:
        """Change what `posted` cost by one more entry, in the windows it was posted in. Returns the cost as it is then.

        Raises NotFoundError when it has no entry, and InvalidRequestError when it would cost less than nothing.
        """
        request = posted.request.request_id
        arguments = (request, posted.held_at, new_request_id(), delta_nanos, actor, reason, self._clock.offset)
        try:
            cost: int | None = await self._pool.fetchval(
                "SELECT ledger_correct($1, $2, $3, $4, $5, $6, $7)", *arguments
            )
        except asyncpg.CheckViolationError as error:
            raise InvalidRequestError(str(error)) from error
        if cost is None:
            raise NotFoundError(f"nothing was posted for request {request}")
        return cost

    async def usage(self, tenant: str, start: datetime, end: datetime, group_by: Sequence[str] = ()) -> list[UsageRow]:
        """Sums over the entries of requests from `start` to before `end`; `group_by` takes names of DIMENSIONS."""
        return await reports.usage(self._pool, tenant, start, end, group_by)

    async def budget(self, tenant: str, user: str | None = None, key_id: str | None = None) -> list[Balance]:
        """How the accounts stand that a request of `user` with `key_id` would be charged to now."""
        return await reports.balances(self._pool, self._clock.now(), tenant, user, key_id)

    async def verify(self) -> list[Difference]:
        """Everything in the ledger that does not add up."""
        return await verify.differences(self._pool, self._clock.offset)

    async def reap(self) -> int:
        """Post, whole and marked as estimated, the holds that expired. Returns how many."""
        reaped = 0
        while count := await self._pool.fetchval("SELECT ledger_reap($1, $2)", _REAP_AT_ONCE, self._clock.offset):
            _log.warning("holds expired and were posted whole", holds=count)
            reaped += count
        return reaped

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        months_due = loop.time() + _KEEP_MONTHS_SECONDS
        while True:
            await asyncio.sleep(self._reap_seconds)
            try:
                await self.reap()
                if loop.time() > months_due:
                    await self._keep_months()
                    months_due = loop.time() + _KEEP_MONTHS_SECONDS
            except FAILURES as error:
                log = _log.warning if is_transient(error) else _log.error
                log("the ledger's upkeep failed and will be tried again", reason=repr(error))

    async def _keep_months(self) -> None:
        await self._pool.execute(
            "SELECT keep_months($1, $2, $3)", _MONTHS_AHEAD, self._retention_months, self._clock.offset
        )


def _bound(request: HoldRequest) -> int:
    """The most that `request` can cost, in nano-dollars."""
    wanted = request.fixed_nanos + price_of(request.max_output_tokens, request.output_nanos_per_million)
    if not 0 <= wanted <= MAX_HOLD_NANOS:
        raise InvalidRequestError("the request could cost more than the ledger can hold; ask for less output")
    return wanted


def _give_up(ticket: HoldTicket) -> None:
    if not ticket.abandoned:
        ticket.done.set_exception(UnavailableError("the ledger does not answer; nothing was charged", retry_after=2))
