"""The worker: claims work, keeps the lease while a batch takes its time, drops everything when the lease is lost."""

import asyncio
import time

import structlog
from prometheus_client import Counter, Histogram

from loam_ingestion.adapters.gateway import Gateway
from loam_ingestion.batch import Batches
from loam_ingestion.errors import GatewayError, IngestionError, LeaseLostError
from loam_ingestion.settings import Settings
from loam_shared.contracts.internal import Claim, Commit, JobResult, Work

_log = structlog.get_logger()
_JOBS = Counter("loam_ingestion_jobs_total", "Jobs by how they ended.", ["state"])
_BATCHES = Counter("loam_ingestion_batches_total", "Batches by how they ended.", ["outcome"])
_SECONDS = Histogram("loam_ingestion_batch_seconds", "How long a batch took from claim to commit.")
_BACKOFF_SECONDS = (0.5, 1, 2, 5, 10)


class Worker:
    """Runs until it is cancelled."""

    def __init__(self, settings: Settings, gateway: Gateway, batches: Batches) -> None:
        self._settings = settings
        self._gateway = gateway
        self._batches = batches
        self._failures = 0

    @property
    def healthy(self) -> bool:
        """Whether the last turn went well."""
        return self._failures == 0

    async def run(self) -> None:
        """Claim and work for ever."""
        while True:
            try:
                await self._turn()
                self._failures = 0
            except IngestionError as error:
                pause = _BACKOFF_SECONDS[min(self._failures, len(_BACKOFF_SECONDS) - 1)]
                self._failures += 1
                _log.warning("no work done", error=str(error), pause_seconds=pause)
                await asyncio.sleep(pause)

    async def _turn(self) -> None:
        claim = Claim(worker=self._settings.worker, max_jobs=self._settings.jobs_per_batch)
        work = await self._gateway.claim(claim)
        if work is None:
            return
        with _SECONDS.time():
            await self._work(work)

    async def _work(self, work: Work) -> None:
        """Do one batch under its lease. Raises IngestionError when it was given back."""
        try:
            results = await self._under_lease(work)
        except LeaseLostError:
            _log.warning("lease lost, batch dropped", epoch=work.epoch, jobs=len(work.jobs))
            _BATCHES.labels("lease_lost").inc()
            return
        except IngestionError:
            _BATCHES.labels("given_back").inc()
            await self._give_back(work)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(work))
            raise
        for result in results:
            _JOBS.labels(result.state).inc()
        _BATCHES.labels("committed").inc()
        _log.info("batch committed", epoch=work.epoch, jobs=len(results))

    async def _under_lease(self, work: Work) -> tuple[JobResult, ...]:
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(work))
                results = await self._batches.run(work)
                renewing.cancel()
        except ExceptionGroup as failed:
            raise _first(failed) from failed
        return results

    async def _renew(self, work: Work) -> None:
        """Keep the lease until cancelled. Raises LeaseLostError, also when it ran out because nobody answered."""
        until = time.monotonic() + work.lease_seconds
        while True:
            await asyncio.sleep(work.lease_seconds / 3)
            asked = time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, until - asked)):
                    await self._gateway.renew(work.epoch)
                until = asked + work.lease_seconds
            except (GatewayError, TimeoutError) as error:
                if time.monotonic() >= until:
                    raise LeaseLostError("the lease ran out") from error

    async def _give_back(self, work: Work) -> None:
        """Free the lease now rather than when it runs out; the jobs that have no result are done again."""
        try:
            await self._gateway.commit(Commit(epoch=work.epoch, results=()))
        except (GatewayError, LeaseLostError) as error:
            _log.info("lease not given back, it runs out by itself", epoch=work.epoch, error=str(error))


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The failure that matters in a group: a lost lease before anything that it brought about."""
    flat: list[Exception] = []
    pending: list[Exception] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, ExceptionGroup):
            pending.extend(error.exceptions)
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, LeaseLostError)), flat[0])
