"""What keeps everything reconciled: changes in, a queue, workers, and a look around every now and then.

The engine is level-based. A change only says that an object is to be looked at; what to do is decided from what is
there then. So it may be killed at any moment and goes on from whatever it finds.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog
from pydantic import ValidationError

from loam_operator.adapters.gateway import GatewayAdmin
from loam_operator.api.v1alpha1 import API_VERSION, KINDS
from loam_operator.apply.push import Pushes
from loam_operator.cluster import Cluster, Manifest, Ref
from loam_operator.observe.world import our_ref
from loam_operator.queue import WorkQueue
from loam_operator.reconcile import apikey, modelroute, notserved, pipeline, tenant, triggers
from loam_operator.reconcile.context import Context, Outcome
from loam_operator.settings import Settings
from loam_shared.contracts import Wire
from loam_shared.errors import ConflictError, LoamError

log = structlog.get_logger()

Some = TypeVar("Some", bound=Wire)
# The moment of reading alone is no news.
_UNSAID = {"as_of"}

Reconcile = Callable[[Context, Ref], Awaitable[Outcome]]
Clock = Callable[[], datetime]

RECONCILERS: dict[str, Reconcile] = {
    "ModelRoute": modelroute.reconcile,
    "Tenant": tenant.reconcile,
    "ApiKey": apikey.reconcile,
    "RagPipeline": pipeline.reconcile,
    "AgentTool": notserved.reconcile,
    "Agent": notserved.reconcile,
}


def utc_now() -> datetime:
    """The present, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


class Engine:
    """Reconciles all of our objects in a cluster with the gateway."""

    def __init__(self, cluster: Cluster, gateway: GatewayAdmin, settings: Settings, clock: Clock = utc_now) -> None:
        self._cluster, self._gateway, self._settings = cluster, gateway, settings
        self._queue: WorkQueue[Ref] = WorkQueue(time.monotonic)
        self._known: dict[Ref, tuple[object, ...]] = {}
        # Less than the time between two looks around, so that each of them tells the gateway again.
        pushes = Pushes(gateway, settings.resync_seconds / 2, time.monotonic)
        idle_limit = timedelta(seconds=settings.ingestion_idle_seconds)
        self.context = Context(cluster, pushes, settings.platform, clock, idle_limit)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        self._cluster.subscribe(self.changed)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._settings.workers):
                tasks.create_task(self._work())
            tasks.create_task(self._resync())
            tasks.create_task(self._read_states())

    @property
    def idle(self) -> bool:
        """Whether everything that changed has been looked at."""
        return self._queue.idle

    def changed(self, manifest: Manifest) -> None:
        """Queue what a change may concern."""
        if triggers.is_ours(manifest):
            ref = Ref.of(manifest)
            self._queue.add(ref)
            now = triggers.fingerprint(manifest) if self._cluster.get(ref) is not None else ()
            if self._known.get(ref) == now:
                return
            self._known[ref] = now
        for ref in triggers.concerned(self._cluster, manifest, self._settings.platform):
            if ref.kind in RECONCILERS:
                self._queue.add(ref)

    async def _work(self) -> None:
        while True:
            ref = await self._queue.get()
            try:
                outcome = await self._reconcile(ref)
            except ConflictError as error:
                log.debug("saw an old state, looking again", object=str(ref), error=error.message)
                self._queue.failed(ref)
            except LoamError as error:
                pause = self._queue.failed(ref)
                log.warning("could not reconcile", object=str(ref), error=error.message, again_in=pause)
            except Exception:
                # One object that trips over a mistake of ours must not stop all others.
                log.exception("failed unexpectedly", object=str(ref), again_in=self._queue.failed(ref))
            else:
                self._settle(ref, outcome)

    def _settle(self, ref: Ref, outcome: Outcome) -> None:
        if outcome.retry:
            self._queue.failed(ref)
        else:
            self._queue.done(ref, outcome.after)

    async def _reconcile(self, ref: Ref) -> Outcome:
        try:
            return await RECONCILERS[ref.kind](self.context, ref)
        except ValidationError as error:
            log.warning("passed over what today's rules refuse", object=str(ref), error=str(error))
            return Outcome()

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            for kind in KINDS:
                for manifest in self._cluster.list(API_VERSION, kind):
                    self._queue.add(Ref.of(manifest))

    async def _read_states(self) -> None:
        """Keep what the gateway says of spend and documents, and look at whom it concerns."""
        while True:
            await asyncio.sleep(self._settings.states_seconds)
            try:
                states = await self._gateway.states()
            except LoamError as error:
                log.debug("the gateway told no states", error=error.message)
                continue
            self._take(self.context.reports.tenants, states.tenants, self._add_tenant)
            self._take(self.context.reports.alerts, states.alerts, self._add_tenant)
            self._take(self.context.reports.pipelines, states.pipelines, self._add_pipeline)

    def _take(self, known: dict[str, Some], said: dict[str, Some], concern: Callable[[str], None]) -> None:
        for name, state in said.items():
            before = known.get(name)
            if before is None or before.model_dump(exclude=_UNSAID) != state.model_dump(exclude=_UNSAID):
                known[name] = state
                concern(name)
        for name in known.keys() - said.keys():
            del known[name]

    def _add_tenant(self, name: str) -> None:
        self._queue.add(our_ref("Tenant", name))

    def _add_pipeline(self, path: str) -> None:
        tenant_name, _, name = path.partition("/")
        self._queue.add(our_ref("RagPipeline", name, self._settings.platform.namespace_of(tenant_name)))
