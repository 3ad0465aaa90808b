"""Connecting what the gateway needs, patiently, and giving it back at the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import orjson
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from loam_gateway import alerts, storage
from loam_gateway.adapters import postgres
from loam_gateway.adapters.postgres import Pool
from loam_gateway.adapters.redis import Redis
from loam_gateway.cache.room import ResponseCache
from loam_gateway.directory import cache as directory
from loam_gateway.ledger import Ledger
from loam_gateway.metering import providers
from loam_gateway.metering.fairness import FairQueue
from loam_gateway.pipelines import room as pipelines
from loam_gateway.settings import Settings
from loam_gateway.state import Runtime, State
from loam_gateway.streams import room as streams
from loam_gateway.streams.crowd import Crowd
from loam_gateway.templates import room as templates
from loam_gateway.vault import Vault, VaultError
from loam_shared.errors import UnavailableError

_log = structlog.get_logger()
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class StartupError(Exception):
    """Why the gateway cannot start, in one sentence for the one who started it."""


@contextlib.asynccontextmanager
async def connected(runtime: Runtime, stop: asyncio.Event) -> AsyncIterator[None]:
    """Hold the runtime's state for the time of the context.

    Raises StartupError when a dependency does not come up within `startup_timeout`; leaves early when `stop` is set.
    """
    secrets = _Secrets(runtime.settings)
    async with contextlib.AsyncExitStack() as stack:
        database = await _database_when_up(runtime, stop, stack)
        if database is not None:
            runtime.state = await _opened(runtime, secrets, database, stack)
            _log.info("ready", host=runtime.settings.host, port=runtime.settings.public_port)
        try:
            yield
        finally:
            runtime.state, runtime.reason = None, "it is shutting down"


async def _opened(
    runtime: Runtime, secrets: "_Secrets", database: "_Database", stack: contextlib.AsyncExitStack
) -> State:
    settings, metrics, pool, enter = runtime.settings, runtime.metrics, database.pool, stack.enter_async_context
    store = await enter(storage.opened(settings, pool, secrets.vault))
    known = await enter(directory.opened(pool, secrets.vault, settings.database_url))
    redis = await enter(Redis.open(settings.redis_url))
    fair_queue = FairQueue(settings.requests_at_work)
    metrics.waiting.set_function(lambda: fair_queue.waiting)
    return State(
        settings=settings,
        pool=pool,
        vault=secrets.vault,
        signing_key=secrets.signing_key,
        admin_token=secrets.admin_token,
        directory=known,
        ledger=database.ledger,
        redis=redis,
        cache=ResponseCache(redis, secrets.vault, metrics),
        provider=await enter(providers.opened(settings, metrics)),
        storage=store,
        pipelines=await enter(pipelines.opened(settings.database_url, pool, store, secrets.vault, secrets.signing_key)),
        templates=templates.opened(known),
        alerts=await enter(alerts.opened(pool, database.ledger, secrets.vault, metrics)),
        streams=await enter(streams.opened(redis, settings, secrets.vault, metrics)),
        sockets=Crowd(settings.websockets_per_tenant, metrics.websockets),
        fair_queue=fair_queue,
        metrics=metrics,
    )


@dataclass(frozen=True, slots=True)
class _Database:
    """PostgreSQL that answers, and the ledger in it."""

    pool: Pool
    ledger: Ledger


async def _database_when_up(
    runtime: Runtime, stop: asyncio.Event, stack: contextlib.AsyncExitStack
) -> _Database | None:
    """The database once it answers and is migrated; None when `stop` comes first. Raises StartupError."""
    loop, patience = asyncio.get_running_loop(), runtime.settings.startup_timeout
    deadline, pause = loop.time() + patience, _FIRST_PAUSE
    while not stop.is_set():
        try:
            return await _database(runtime, stack)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # Callers are told the reason, which is why the address in `error` is left to the log.
            runtime.reason, detail = "PostgreSQL does not answer", str(error) or "it took too long"
        except UnavailableError as error:
            runtime.reason, detail = error.message, ""
        if loop.time() + pause > deadline:
            raise StartupError(f"{runtime.reason}; gave up after {patience:g} s. {detail}".strip())
        _log.warning("waiting", reason=runtime.reason, detail=detail, retry_in=pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return None


async def _database(runtime: Runtime, stack: contextlib.AsyncExitStack) -> _Database:
    settings, metrics = runtime.settings, runtime.metrics
    async with contextlib.AsyncExitStack() as attempt:
        pool = await postgres.connect(settings.database_url, settings.database_connections)
        attempt.push_async_callback(pool.close)
        ledger = await attempt.enter_async_context(
            Ledger(
                pool,
                retention_months=settings.ledger_retention_months,
                batches=metrics.ledger_batch.observe,
            )
        )
        metrics.ledger_queue.set_function(lambda: ledger.waiting)
        stack.push_async_exit(attempt.pop_all())
        return _Database(pool, ledger)


class _Secrets:
    """What lies in files, read before anything is waited for. Raises StartupError that names the file."""

    def __init__(self, settings: Settings) -> None:
        self.signing_key = _signing_key(settings.signing_key_file)
        self.admin_token = _admin_token(settings.admin_token_file)
        try:
            self.vault = Vault.from_file(settings.encryption_key_file)
        except VaultError as error:
            raise StartupError(str(error)) from error


def _signing_key(path: Path) -> OKPKey:
    try:
        return OKPKey.import_key(orjson.loads(path.read_bytes()))
    except (OSError, ValueError, JoseError) as error:
        raise StartupError(f"the signing key in {path} is no private Ed25519 JWK: {error}") from error


def _admin_token(path: Path) -> bytes:
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise StartupError(f"the admin token in {path} cannot be read: {error.strerror}") from error
    if not token:
        raise StartupError(f"the admin token in {path} is empty")
    return token
