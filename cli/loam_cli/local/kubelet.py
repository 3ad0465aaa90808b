"""Runs the Deployments of the local cluster as processes, and says in their status how they are."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import aiohttp
import structlog

from loam_cli.local.cluster import LocalCluster
from loam_cli.local.pods import LOCAL_HOST, NotRunnableLocallyError, Planner, PodPlan, WaitingError
from loam_cli.local.process import Guard, Program, State, Supervised, last_words
from loam_cli.local.servers import http_ready
from loam_operator.cluster import Manifest, Ref
from loam_shared.errors import LoamError

log = structlog.get_logger()

_FEEDS_PODS = {"Deployment", "Secret", "ConfigMap"}
_AGAIN_SECONDS = 1.0


@dataclass
class _Pod:
    plan: PodPlan
    process: Supervised


class Kubelet:
    """One process per Deployment that wants replicas. `changed` is told of every pod that comes, goes or crashes."""

    def __init__(
        self,
        cluster: LocalCluster,
        planner: Planner,
        guard: Guard,
        http: aiohttp.ClientSession,
        logs: Path,
        changed: Callable[[str, Supervised], None],
    ) -> None:
        self._cluster = cluster
        self._planner = planner
        self._guard = guard
        self._http = http
        self._logs = logs
        self._changed = changed
        self._pods: dict[Ref, _Pod] = {}
        self._wake = asyncio.Event()

    @property
    def is_starting(self) -> bool:
        """Whether a process has been started and is not ready yet."""
        return any(pod.process.state is State.STARTING for pod in self._pods.values())

    @property
    def processes(self) -> dict[str, Supervised]:
        """Every pod's process, by the namespace and name of its Deployment."""
        return {f"{ref.namespace}/{ref.name}": pod.process for ref, pod in self._pods.items()}

    async def run(self) -> None:
        """Keep the processes as the Deployments say, until cancelled; then all of them are stopped."""
        self._cluster.subscribe(self._notice)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._sync()
                except (LoamError, OSError) as error:
                    # Such as a full disk. What runs goes on running meanwhile.
                    log.warning("could not look after the pods", error=str(error), again_in=_AGAIN_SECONDS)
                    asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._wake.set)
        finally:
            await asyncio.gather(*(pod.process.stop() for pod in self._pods.values()))

    def _notice(self, manifest: Manifest) -> None:
        if manifest["kind"] in _FEEDS_PODS:
            self._wake.set()

    async def _sync(self) -> None:
        wanted = {Ref.of(deployment): deployment for deployment in self._cluster.list("apps/v1", "Deployment")}
        gone = [ref for ref in self._pods if ref not in wanted]
        await asyncio.gather(*(self._stop(ref) for ref in gone))
        await asyncio.gather(*(self._sync_one(ref, deployment) for ref, deployment in wanted.items()))

    async def _sync_one(self, ref: Ref, deployment: Manifest) -> None:
        if deployment["spec"].get("replicas", 1) == 0 or deployment["metadata"].get("deletionTimestamp"):
            await self._stop(ref)
        else:
            try:
                await self._run(ref, self._planner.plan(deployment))
            except NotRunnableLocallyError as error:
                await self._say(ref, reason="NotRunnableLocally", message=str(error))
                return
            except WaitingError as error:
                await self._say(ref, reason="Waiting", message=str(error))
                return
        await self._say_how_it_is(ref)

    async def _run(self, ref: Ref, plan: PodPlan) -> None:
        pod = self._pods.get(ref)
        for volume in plan.volumes:
            volume.write()
        if pod is not None and pod.plan.same_process(plan):
            pod.plan = plan
            return
        await self._stop(ref)
        name = f"{ref.namespace}/{ref.name}"
        log = self._logs / f"{ref.namespace}.{ref.name}.log"
        process = Supervised(self._program(name, plan), self._guard, log, lambda _: self._process_changed(ref))
        self._pods[ref] = _Pod(plan, process)
        process.start()

    def _program(self, name: str, plan: PodPlan) -> Program:
        if plan.probe_path is not None and plan.port is not None:
            ready = http_ready(self._http, f"http://{LOCAL_HOST}:{plan.port}{plan.probe_path}")
        else:
            ready = _ready_when_started
        return Program(name, plan.command, plan.env, ready, cwd=self._planner.pods)

    async def _stop(self, ref: Ref) -> None:
        if (pod := self._pods.pop(ref, None)) is not None:
            await pod.process.stop()

    def _process_changed(self, ref: Ref) -> None:
        if (pod := self._pods.get(ref)) is not None:
            self._changed(f"{ref.namespace}/{ref.name}", pod.process)
            self._wake.set()

    async def _say_how_it_is(self, ref: Ref) -> None:
        pod = self._pods.get(ref)
        if pod is None:
            await self._say(ref, reason="ScaledToZero", message="no replicas are wanted", replicas=0)
        elif pod.process.state is State.READY:
            await self._say(ref, reason="MinimumReplicasAvailable", message="the process is ready", ready=1)
        elif pod.process.state is State.CRASHED:
            words = last_words(pod.process.log)
            await self._say(ref, reason="CrashLoopBackOff", message=f"the process ended: {words}")
        else:
            await self._say(ref, reason="MinimumReplicasUnavailable", message="the process is starting")

    async def _say(self, ref: Ref, *, reason: str, message: str, ready: int = 0, replicas: int = 1) -> None:
        deployment = self._cluster.get(ref)
        if deployment is None:
            return
        available: Literal["True", "False"] = "True" if ready == replicas else "False"
        condition = _condition(deployment, "Available", available, reason, message)
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": replicas - ready,
            "conditions": [condition],
        }
        await self._cluster.apply_status(ref, status)


async def _ready_when_started() -> bool:
    return True


def _condition(
    live: Manifest, type_: str, status: Literal["True", "False"], reason: str, message: str
) -> dict[str, Any]:
    """A condition whose transition time moves only with its status."""
    before: Manifest = next((c for c in live.get("status", {}).get("conditions", ()) if c["type"] == type_), {})
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    moment = before["lastTransitionTime"] if before.get("status") == status else now
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}
