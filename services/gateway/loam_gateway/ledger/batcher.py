"""Micro-batches: while one transaction is in flight, the next gathers. One batcher and one connection per process."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import asyncpg
import structlog

from loam_gateway.adapters.postgres import FAILURES, Connection, Pool, Statement, is_transient
from loam_gateway.ledger.accounts import Accounts
from loam_gateway.ledger.clock import Clock
from loam_gateway.ledger.tickets import HoldTicket, SettleTicket, Ticket
from loam_gateway.ledger.turn import ANSWER_SECONDS, TURN, Turn, refusal
from loam_shared.errors import LoamError, UnavailableError

_MAX_TICKETS = 512
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
# A statement may take longer than any batch should wait for its locks, but less than callers wait for the ledger. All
# of the ledger's statements find their few rows by an index, however much there is: so they are planned once.
_OPTIONS = """
SET statement_timeout = '5s'; SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off
"""
_log = structlog.get_logger()


class Batcher:
    """Takes tickets and answers each one exactly once, however often the database goes away in between."""

    def __init__(self, pool: Pool, clock: Clock, batches: Callable[[int], object]) -> None:
        self._pool = pool
        self._clock = clock
        self._accounts = Accounts()
        self._batches = batches
        self._waiting: list[Ticket] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._connection: Connection | None = None
        self._backend: asyncpg.Record | None = None
        self._statement: Statement | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve."""
        self._task = asyncio.create_task(self._serve(), name="ledger")

    async def close(self, drain_seconds: float) -> None:
        """Serve what is waiting, for at most `drain_seconds` seconds, and stop."""
        if self._task is None:
            return
        self._closing = True
        self._wake.set()
        _done, late = await asyncio.wait([self._task], timeout=drain_seconds)
        if late:
            _log.error("the ledger is closed before all was posted; the holds will expire", tickets=len(self._waiting))
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @property
    def waiting(self) -> int:
        """How many tickets wait for the next batch."""
        return len(self._waiting)

    def put(self, ticket: Ticket) -> None:
        """Queue a ticket; the next batch takes it along."""
        self._waiting.append(ticket)
        self._wake.set()
        if self._task is None or self._task.done():
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        """Nobody serves any more: closed, or ended by a defect. To wait in vain would be worse than to hear it."""
        for ticket in self._waiting:
            if not ticket.done.done():
                ticket.done.set_exception(UnavailableError("the ledger is closed"))
        self._waiting.clear()

    async def _serve(self) -> None:
        batch: list[Ticket] = []
        try:
            while self._waiting or not self._closing:
                await self._wake.wait()
                batch, self._waiting = self._waiting[:_MAX_TICKETS], self._waiting[_MAX_TICKETS:]
                if not self._waiting and not self._closing:
                    self._wake.clear()
                if batch:
                    self._batches(len(batch))
                    await self._commit(batch)
        finally:
            self._waiting = [*batch, *self._waiting]
            self._refuse_waiting()
            await self._disconnect()

    async def _commit(self, batch: Sequence[Ticket]) -> None:
        """Commit `batch` in one transaction, or, when something in it is refused by the database, each by itself."""
        try:
            await self._commit_together(batch)
        except FAILURES as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            _log.error("a batch of the ledger is repeated one by one", reason=str(error), tickets=len(batch))
            for ticket in batch:
                await self._commit([ticket])

    async def _commit_together(self, batch: Sequence[Ticket]) -> None:
        pause = _FIRST_PAUSE
        while tickets := self._still_wanted(batch):
            try:
                await self._commit_once(tickets)
            except FAILURES as error:
                if not is_transient(error):
                    raise
                _log.warning("the ledger cannot reach PostgreSQL", reason=repr(error), retry_in=pause)
                await self._disconnect()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return

    def _still_wanted(self, batch: Sequence[Ticket]) -> list[Ticket]:
        """The batch without the holds that nobody waits for; one that may have been taken is given back."""
        tickets: list[Ticket] = []
        for ticket in batch:
            if not isinstance(ticket, HoldTicket) or not ticket.abandoned:
                tickets.append(ticket)
            elif ticket.attempted:
                tickets.append(SettleTicket.release(ticket.hold()))
        return tickets

    async def _commit_once(self, tickets: Sequence[Ticket]) -> None:
        statement = self._statement or await self._connect()
        await self._address([ticket for ticket in tickets if isinstance(ticket, HoldTicket) and not ticket.accounts])
        answerable = [ticket for ticket in tickets if not (isinstance(ticket, HoldTicket) and ticket.abandoned)]
        for ticket in await Turn(answerable).run(statement, self._clock):
            if isinstance(ticket, HoldTicket):
                assert ticket.held_at is not None
                self._accounts.forget(ticket.request, ticket.held_at)
                ticket.anew()
            self.put(ticket)

    async def _address(self, fresh: Sequence[HoldTicket]) -> None:
        """Fix the moment of each hold, and with it its accounts."""
        moments = [self._clock.now() for _ in fresh]
        unknown = [
            (ticket.request, moment)
            for ticket, moment in zip(fresh, moments, strict=True)
            if not self._accounts.find(ticket.request, moment)
        ]
        if unknown:
            assert self._connection is not None
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._accounts.open(self._connection, unknown)
        for ticket, moment in zip(fresh, moments, strict=True):
            ticket.held_at, ticket.accounts = moment, self._accounts.find(ticket.request, moment)
            if ticket.accounts is None and not ticket.abandoned:
                ticket.done.set_exception(refusal("unknown"))

    async def _connect(self) -> Statement:
        """Prepare the batcher's own connection. What an earlier one may still have been doing is over by then."""
        async with asyncio.timeout(ANSWER_SECONDS):
            connection = await self._pool.acquire()
            try:
                await self._end_earlier(connection)
                await connection.execute(_OPTIONS)
                self._backend = await connection.fetchrow(_BACKEND)
                self._statement = await connection.prepare(TURN)
            except BaseException:
                await self._give_back(connection)
                raise
        self._connection = connection
        return self._statement

    async def _end_earlier(self, connection: Connection) -> None:
        """End the backend of a connection that broke: it has then committed its batch or never will."""
        if self._backend is not None and await connection.fetchval(_END_BACKEND, *self._backend) is False:
            raise TimeoutError("the backend of the connection that broke is still at work")

    async def _disconnect(self) -> None:
        connection, self._connection, self._statement = self._connection, None, None
        if connection is not None:
            await self._give_back(connection)

    async def _give_back(self, connection: Connection) -> None:
        # Closed rather than reused: after a failure nobody knows what state it is in. One that broke has gone back to
        # the pool by itself, which both calls complain about.
        with contextlib.suppress(*FAILURES):
            connection.terminate()
        with contextlib.suppress(*FAILURES):
            await self._pool.release(connection)


_BACKEND = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END_BACKEND = """
SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
"""


def _fail(ticket: Ticket, error: Exception) -> None:
    _log.error("the ledger refuses a ticket", ticket=type(ticket).__name__, reason=str(error))
    if not ticket.done.done():
        failure = LoamError("the ledger could not write this down")
        failure.__cause__ = error
        ticket.done.set_exception(failure)
