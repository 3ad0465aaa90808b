"""What goes on beside the calls: looking for budgets that passed a percentage, and sending what is due."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import structlog

from loam_gateway.adapters.postgres import FAILURES, Pool, is_transient
from loam_gateway.alerts import crossings
from loam_gateway.alerts.model import Delivery, DeliveryError
from loam_gateway.alerts.outbox import NO_MAIL, Outbox
from loam_gateway.alerts.sending import Sender
from loam_gateway.alerts.settings import AlertSettings
from loam_gateway.ledger import Ledger
from loam_gateway.metrics import Metrics
from loam_gateway.vault import Vault
from loam_shared.contracts.admin import AlertState

_AT_ONCE = 32
_LONGEST_PAUSE = 1800.0
# A look may take a twentieth of the time at most, however many accounts there are.
_RESTS_PER_LOOK = 20
_FORGET_SECONDS = 3600.0
_PARTING_SECONDS = 5.0
_log = structlog.get_logger()


class Alerts:
    """The room as routes see it."""

    def __init__(self, pool: Pool, ledger: Ledger, vault: Vault, settings: AlertSettings, metrics: Metrics) -> None:
        self._pool, self._ledger, self._settings, self._metrics = pool, ledger, settings, metrics
        self._refusing: set[int] = set()
        self._closing = asyncio.Event()
        self._said_no_mail = False
        self._outbox = Outbox(
            pool, lease=2 * settings.alerts_send_timeout, give_up_after=settings.alerts_give_up_seconds
        )
        self._sender = Sender(vault, settings)

    async def states(self, tenant: str | None = None) -> dict[str, AlertState]:
        """Whether messages arrive, by tenant, or for one."""
        return await self._outbox.states(mails=self._settings.smtp_url is not None, tenant=tenant)

    async def retry(self, tenant: str) -> None:
        """The tenant's targets have changed: what failed is worth another attempt at once."""
        await self._outbox.retry(tenant)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Look and send for as long as the context lasts. At its end messages under way have a moment to arrive."""
        looking, delivering = asyncio.create_task(self._look()), asyncio.create_task(self._deliver())
        try:
            yield
        finally:
            self._closing.set()
            looking.cancel()
            # Cut off, they would be sent once more by another gateway.
            await asyncio.wait({delivering}, timeout=_PARTING_SECONDS)
            delivering.cancel()
            await asyncio.gather(looking, delivering, return_exceptions=True)

    async def _look(self) -> None:
        loop, forget_at = asyncio.get_running_loop(), 0.0
        while True:
            begun = loop.time()
            await self._look_once()
            if begun >= forget_at:
                await _tried(lambda: crossings.forget(self._pool))
                forget_at = begun + _FORGET_SECONDS
            took = loop.time() - begun
            await asyncio.sleep(max(self._settings.alerts_look_seconds, _RESTS_PER_LOOK * took))

    async def _look_once(self) -> None:
        self._refusing |= self._ledger.take_refusing()
        raised = await _tried(lambda: crossings.look(self._pool)) or 0
        if self._refusing:
            more = await _tried(lambda: crossings.used_up(self._pool, self._refusing))
            if more is not None:
                raised += more
                self._refusing.clear()
        self._metrics.alerts_raised.inc(raised)

    async def _deliver(self) -> None:
        """One message of a tenant at a time: a webhook that keeps us waiting keeps its own tenant waiting."""
        under_way: dict[asyncio.Task[None], str] = {}
        closing = asyncio.create_task(self._closing.wait())
        try:
            while not closing.done():
                for delivery in await self._claimed(under_way.values()):
                    under_way[asyncio.create_task(self._attempt(delivery))] = delivery.alert.tenant
                waited_for, pause = {closing, *under_way}, self._settings.alerts_look_seconds
                done, _ = await asyncio.wait(waited_for, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                under_way = {task: tenant for task, tenant in under_way.items() if task not in done}
            await asyncio.gather(*under_way)
        finally:
            for task in (closing, *under_way):
                task.cancel()

    async def _claimed(self, busy: Collection[str]) -> list[Delivery]:
        if len(busy) >= _AT_ONCE:
            return []
        claimed: list[Delivery] | None = await _tried(lambda: self._outbox.claim(_AT_ONCE - len(busy), busy))
        return claimed or []

    async def _attempt(self, delivery: Delivery) -> None:
        try:
            await self._sender.send(delivery)
        except DeliveryError as error:
            await self._note_failure(delivery, error)
        else:
            # What cannot be noted is sent again once the lease is over, with the same id.
            await _tried(lambda: self._outbox.sent(delivery))
            self._metrics.alert_messages.labels(delivery.channel, "sent").inc()

    async def _note_failure(self, delivery: Delivery, error: DeliveryError) -> None:
        pause = None if error.final else self._pause(delivery, error)
        given_up = await _tried(lambda: self._outbox.failed(delivery, error, pause))
        outcome = "given_up" if given_up else "failed"
        self._metrics.alert_messages.labels(delivery.channel, outcome).inc()
        if error.reason == NO_MAIL[0]:
            if self._said_no_mail:
                return
            self._said_no_mail = True
        facts = {"tenant": delivery.alert.tenant, "message": str(delivery.id), "attempt": delivery.attempt}
        _log.warning("an alert was not sent", channel=delivery.channel, outcome=outcome, reason=error.reason, **facts)

    def _pause(self, delivery: Delivery, error: DeliveryError) -> float:
        if error.persistent:
            return _LONGEST_PAUSE
        doubled = self._settings.alerts_retry_seconds * 2.0 ** min(delivery.attempt - 1, 16)
        return min(max(doubled, error.after), _LONGEST_PAUSE)


async def _tried(work: Callable[[], Awaitable[Any]]) -> Any:
    """What `work` gives; None when the database does not answer, so that the next round tries again."""
    try:
        return await work()
    except FAILURES as error:
        log = _log.warning if is_transient(error) else _log.error
        log("alerts wait for the database", reason=repr(error))
        return None


@contextlib.asynccontextmanager
async def opened(pool: Pool, ledger: Ledger, vault: Vault, metrics: Metrics) -> AsyncIterator[Alerts]:
    """The room, at work for as long as the context lasts."""
    alerts = Alerts(pool, ledger, vault, AlertSettings(), metrics)
    async with alerts.working():
        yield alerts
