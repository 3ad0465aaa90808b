"""Running the operator against a Kubernetes API server, until it is told to stop."""

import asyncio
import logging as stdlib_logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import kopf
import structlog

from loam_operator.adapters.api import Api
from loam_operator.adapters.gateway import GatewayAdmin
from loam_operator.adapters.kubernetes import KubernetesCluster
from loam_operator.engine import Clock, Engine, utc_now
from loam_operator.handlers import events
from loam_operator.settings import Settings
from loam_shared import logging

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Run until SIGTERM or Ctrl-C, then stop cleanly."""
    logging.configure(settings.log_level, service="operator")
    # kopf tells of every event that it passes on.
    stdlib_logging.getLogger("kopf").setLevel(stdlib_logging.WARNING)
    asyncio.run(_until_told(settings))


async def _until_told(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


async def serve(
    settings: Settings, stop: asyncio.Event, *, clock: Clock = utc_now, started: Callable[[Engine], None] | None = None
) -> None:
    """Reconcile until `stop` is set or a part of the operator fails. `started` is told when everything was read."""
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    api = await Api.connect(kubeconfig)
    cluster = KubernetesCluster(api, settings.platform.namespace)
    gateway = GatewayAdmin(settings.admin_url, settings.admin_token_file)
    engine = Engine(cluster, gateway, settings, clock)

    async def work() -> None:
        await cluster.start()
        log.info("watching", admin=settings.admin_url, workers=settings.workers)
        if started is not None:
            started(engine)
        await _first_of(engine.run(), _watch_ours(api, cluster, settings))

    try:
        await _first_of(work(), stop.wait())
    finally:
        await cluster.stop()
        await gateway.close()


async def _watch_ours(api: Api, cluster: KubernetesCluster, settings: Settings) -> None:
    endpoint = f"http://0.0.0.0:{settings.health_port}/healthz" if settings.health_port else None
    await kopf.operator(
        registry=events.registry(cluster.store.put, cluster.store.remove, api.access),
        settings=events.settings(),
        clusterwide=True,
        liveness_endpoint=endpoint,
    )


async def _first_of(*parts: Coroutine[Any, Any, object]) -> None:
    """Run the parts until one of them ends; its error, if it had one, is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
