"""The directory as requests see it: through a cache that is never older than a moment.

A change is told to every gateway by NOTIFY and seen at once. Should that message be lost, an entry still lives no
longer than `_FRESH_SECONDS`, so that a revoked key is refused everywhere within a second. What money depends on (the
key is active, the tenant is not suspended) the ledger checks once more in the transaction of the hold.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import asyncpg
import structlog

from loam_gateway.adapters.postgres import Pool
from loam_gateway.directory import queries
from loam_gateway.directory.model import Model, Principal, Tenant
from loam_gateway.vault import Vault

_FRESH_SECONDS = 0.8
_MAX_ENTRIES = 50_000
_RECONNECT_SECONDS = 1.0
_log = structlog.get_logger()
_Value = TypeVar("_Value")


class _Cache(Generic[_Value]):
    """Values by name, each read again when it is no longer fresh. Readers at the same time share one reading."""

    def __init__(self, read: Callable[[str], Awaitable[_Value]]) -> None:
        self._read = read
        self._entries: dict[str, tuple[float, asyncio.Future[_Value]]] = {}

    async def get(self, name: str) -> _Value:
        now = asyncio.get_running_loop().time()
        entry = self._entries.get(name)
        if entry is None or entry[0] < now:
            entry = self._begin(name, now)
        # Shielded, for the one who began the reading may go away while others wait for it.
        return await asyncio.shield(entry[1]) if not entry[1].done() else entry[1].result()

    def _begin(self, name: str, now: float) -> tuple[float, asyncio.Future[_Value]]:
        if len(self._entries) >= _MAX_ENTRIES:
            self._entries.clear()
        reading: asyncio.Future[_Value] = asyncio.ensure_future(self._read(name))
        reading.add_done_callback(lambda done: self._drop_failed(name, done))
        self._entries[name] = (now + _FRESH_SECONDS, reading)
        return self._entries[name]

    def _drop_failed(self, name: str, reading: "asyncio.Future[_Value]") -> None:
        entry = self._entries.get(name)
        if (reading.cancelled() or reading.exception()) and entry is not None and entry[1] is reading:
            del self._entries[name]

    def clear(self) -> None:
        self._entries.clear()


class Directory:
    """Tenants, models and keys for reading. Values are at most a second old."""

    def __init__(self, pool: Pool, vault: Vault) -> None:
        self._principals: _Cache[Principal | None] = _Cache(lambda digest: queries.principal(pool, digest))
        self._tenants: _Cache[Tenant | None] = _Cache(lambda name: queries.tenant(pool, vault, name))
        self._models: _Cache[Model | None] = _Cache(lambda name: queries.model(pool, vault, name))
        self._templates: _Cache[str] = _Cache(lambda name: queries.templates(pool, name))
        self._change = asyncio.Event()

    async def principal(self, digest: str) -> Principal | None:
        """The owner of the key with that SHA-256; None when it is unknown, revoked or expired."""
        return await self._principals.get(digest)

    async def tenant(self, name: str) -> Tenant | None:
        """The tenant, if there is one."""
        return await self._tenants.get(name)

    async def model(self, name: str) -> Model | None:
        """The model, if there is one."""
        return await self._models.get(name)

    async def templates(self, tenant: str) -> str:
        """The tenant's own prompt templates, as JSON."""
        return await self._templates.get(tenant)

    def forget(self) -> None:
        """Read everything again. Changes are rare, so all of it is simplest."""
        for cache in (self._principals, self._tenants, self._models, self._templates):
            cache.clear()
        told, self._change = self._change, asyncio.Event()
        told.set()

    @property
    def change(self) -> asyncio.Event:
        """Set at the next change. Whoever looks something up takes it before, so that no change falls in between."""
        return self._change


@contextlib.asynccontextmanager
async def opened(pool: Pool, vault: Vault, database_url: str) -> AsyncIterator[Directory]:
    """A directory that listens for changes as long as the context lasts."""
    directory = Directory(pool, vault)
    listening = asyncio.create_task(_listen(database_url, directory))
    try:
        yield directory
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


async def _listen(database_url: str, directory: Directory) -> None:
    """Forget on every message, and whenever messages may have been missed."""
    while True:
        try:
            await _listen_once(database_url, directory)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.warning("the directory hears of changes late for now", reason=str(error))
        await asyncio.sleep(_RECONNECT_SECONDS)


async def _listen_once(database_url: str, directory: Directory) -> None:
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: lost.set())
        await connection.add_listener(queries.CHANNEL, lambda *_message: directory.forget())
        directory.forget()
        await lost.wait()
    finally:
        connection.terminate()
