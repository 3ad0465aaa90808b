"""What the three listeners share: built once at start-up, typed, and handed to routes as a dependency."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from joserfc.jwk import OKPKey

from loam_gateway.adapters.postgres import Pool
from loam_gateway.adapters.redis import Redis
from loam_gateway.alerts import Alerts
from loam_gateway.cache.room import ResponseCache
from loam_gateway.directory.cache import Directory
from loam_gateway.ledger import Ledger
from loam_gateway.metering.fairness import FairQueue
from loam_gateway.metering.providers import Provider
from loam_gateway.metrics import Metrics
from loam_gateway.pipelines.room import Room
from loam_gateway.settings import Settings
from loam_gateway.storage import Storage
from loam_gateway.streams.crowd import Crowd
from loam_gateway.streams.room import Streams
from loam_gateway.templates.room import Templates
from loam_gateway.vault import Vault
from loam_shared.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a request may need, connected and ready."""

    settings: Settings
    pool: Pool
    vault: Vault
    signing_key: OKPKey
    admin_token: bytes = field(repr=False)
    directory: Directory
    ledger: Ledger
    redis: Redis
    provider: Provider
    storage: Storage
    pipelines: Room
    cache: ResponseCache
    templates: Templates
    streams: Streams
    sockets: Crowd
    alerts: Alerts
    fair_queue: FairQueue
    metrics: Metrics


@dataclass(slots=True)
class Runtime:
    """The process's state as it comes and goes. Until `state` is there, `reason` says what is being waited for.

    `probed` is the last look at the dependencies, and when it was.
    """

    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    state: State | None = None
    reason: str = "it has just started"
    draining: bool = False
    probed: "tuple[float, asyncio.Task[dict[str, str]]] | None" = None


async def runtime_of(request: Request) -> Runtime:
    """The runtime of the process that serves `request`."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def state_of(runtime: Annotated[Runtime, Depends(runtime_of)]) -> State:
    """The connected state. Raises UnavailableError while there is none."""
    if runtime.state is None:
        raise UnavailableError(f"the gateway is not ready: {runtime.reason}", retry_after=2)
    return runtime.state


Deps = Annotated[State, Depends(state_of)]
