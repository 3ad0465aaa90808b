"""Connecting what the gateway needs, patiently, and giving it back at the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import orjson
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from loam_gateway import storage
from loam_gateway.pipelines import room
from loam_gateway.settings import Settings
from loam_gateway.state import Runtime, State
from loam_gateway.vault import Vault, VaultError

_log = structlog.get_logger()
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class StartupError(Exception):
    """Why the gateway cannot start, in one sentence for the one who started it."""


@contextlib.asynccontextmanager
async def connected(runtime: Runtime, stop: asyncio.Event) -> AsyncIterator[None]:
    """Hold the runtime's state for the time of the context.

    Raises StartupError when a dependency does not come up within `startup_timeout`; leaves early when `stop` is set.
    """
    async with contextlib.AsyncExitStack() as stack:
        runtime.state = await _open(runtime, stop, stack)
        _log.info("ready", public=runtime.settings.public_port)
        try:
            yield
        finally:
            runtime.state, runtime.reason = None, "it is shutting down"


async def _open(runtime: Runtime, stop: asyncio.Event, stack: contextlib.AsyncExitStack) -> State | None:
    settings = runtime.settings
    vault, signing_key = _secrets(settings)
    pool = await _pool_when_up(runtime, stop)
    if pool is None:
        return None
    stack.push_async_callback(pool.close)
    place = await stack.enter_async_context(storage.opened(settings, pool, vault))
    pipelines = await stack.enter_async_context(room.opened(settings.database_url, pool, place, signing_key))
    return State(settings=settings, pool=pool, vault=vault, signing_key=signing_key, storage=place, pipelines=pipelines)


async def _pool_when_up(runtime: Runtime, stop: asyncio.Event) -> "asyncpg.Pool[asyncpg.Record] | None":
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + runtime.settings.startup_timeout, _FIRST_PAUSE
    while not stop.is_set():
        try:
            return await asyncpg.create_pool(runtime.settings.database_url, timeout=5)
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            runtime.reason = f"PostgreSQL does not answer ({error})"
            if loop.time() + pause > deadline:
                raise StartupError(f"{runtime.reason}; gave up after {runtime.settings.startup_timeout:g} s") from error
            _log.warning("waiting for PostgreSQL", reason=str(error), retry_in=pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return None


def _secrets(settings: Settings) -> tuple[Vault, OKPKey]:
    try:
        return Vault.from_file(settings.encryption_key_file), _signing_key(settings.signing_key_file)
    except VaultError as error:
        raise StartupError(str(error)) from error


def _signing_key(path: Path) -> OKPKey:
    try:
        return OKPKey.import_key(orjson.loads(path.read_bytes()))
    except (OSError, ValueError, JoseError) as error:
        raise StartupError(f"the signing key in {path} is no private Ed25519 JWK: {error}") from error
