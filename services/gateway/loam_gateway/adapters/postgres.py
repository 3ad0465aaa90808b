"""PostgreSQL: how the gateway connects to it, and which of its failures pass."""

from typing import TYPE_CHECKING, TypeAlias

import asyncpg

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Statement: TypeAlias = asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]
else:
    # The stubs are generic, the classes are not.
    Pool, Connection = asyncpg.Pool, asyncpg.pool.PoolConnectionProxy
    Statement = asyncpg.prepared_stmt.PreparedStatement

FAILURES: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What asyncpg raises when a connection breaks at the wrong moment.
    asyncpg.InternalClientError,
)
"""Everything that talking to PostgreSQL may raise."""

# The connection is gone, or the server is starting, stopping, failing over, short of something or untangling a
# deadlock. A transaction that met one of these may or may not have been committed.
_TRANSIENT: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresSystemError,
)


async def connect(database_url: str, connections: int = 16, *, patience: float = 5) -> Pool:
    """A pool of at most `connections`, opened as they are needed; one of them at once, to see that the server is there.

    Raises what is in FAILURES when the server cannot be reached within `patience` seconds.
    """
    pool: Pool = await asyncpg.create_pool(
        database_url,
        # With a floor the pool would restore it by itself, and log every attempt while the server is away.
        min_size=0,
        max_size=connections,
        timeout=patience,
        # Compiling a query takes longer than any of ours runs.
        server_settings={"application_name": "loam-gateway", "jit": "off"},
    )
    try:
        await pool.fetchval("SELECT true")
    except BaseException:
        pool.terminate()
        raise
    return pool


def is_transient(error: BaseException) -> bool:
    """Whether it is worth trying again. A value that cannot be encoded is an InterfaceError too, and stays wrong."""
    return isinstance(error, _TRANSIENT) and not isinstance(error, ValueError)
