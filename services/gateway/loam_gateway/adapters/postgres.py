"""PostgreSQL: how the gateway connects to it, and which of its failures pass."""

from typing import TYPE_CHECKING, TypeAlias

import asyncpg

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    # The stubs are generic, the classes are not.
    Pool, Connection = asyncpg.Pool, asyncpg.pool.PoolConnectionProxy

# The connection is gone, or the server is starting, stopping, failing over, short of something or untangling a
# deadlock. A transaction that met one of these may or may not have been committed.
TRANSIENT: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresSystemError,
)


async def connect(database_url: str, connections: int = 16, *, patience: float = 5) -> Pool:
    """A pool of at most `connections`, none of which is opened before it is needed but the first.

    Raises what is in TRANSIENT when the server cannot be reached within `patience` seconds.
    """
    return await asyncpg.create_pool(
        database_url,
        min_size=1,
        max_size=connections,
        timeout=patience,
        # Compiling a query takes longer than any of ours runs.
        server_settings={"application_name": "loam-gateway", "jit": "off"},
    )


def is_transient(error: BaseException) -> bool:
    """Whether it is worth trying again. A value that cannot be encoded is an InterfaceError too, and stays wrong."""
    return isinstance(error, TRANSIENT) and not isinstance(error, ValueError)
