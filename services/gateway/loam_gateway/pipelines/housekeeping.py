"""What happens by itself: syncs by schedule, raw objects that nothing refers to, conversations that are over.

Every gateway does this all the time; rows are taken with SKIP LOCKED, so each thing is done by exactly one of them.
"""

import asyncio
from datetime import datetime

import asyncpg
import orjson
import structlog

from loam_gateway.adapters.postgres import Pool
from loam_gateway.adapters.s3 import ObjectStore
from loam_gateway.pipelines import catalog
from loam_gateway.pipelines.model import PipelineId, next_sync
from loam_gateway.pipelines.settings import PipelineSettings
from loam_gateway.storage import Storage
from loam_gateway.storage.policy import prefix_of
from loam_shared.errors import UnavailableError

_AT_ONCE = 200
_log = structlog.get_logger()


async def run(pool: Pool, storage: Storage, settings: PipelineSettings) -> None:
    """Keep house until cancelled; what fails is tried again in the next round."""
    objects = storage.objects
    while True:
        try:
            await start_due_syncs(pool)
            await delete_unclaimed(pool, objects)
            await delete_retired(pool, storage, settings.superseded_versions_seconds)
            await pool.execute(_FORGET_CONVERSATIONS, settings.conversation_ttl_seconds)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, UnavailableError) as error:
            _log.warning("housekeeping will try again", reason=str(error))
        await asyncio.sleep(settings.housekeeping_seconds)


async def start_due_syncs(pool: Pool) -> int:
    """Queue a sync for every pipeline whose schedule says so, and return how many."""
    async with pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch(_DUE_SYNCS, _AT_ONCE)
        for row in rows:
            pipeline = PipelineId(row["tenant"], row["name"])
            await catalog.queue_sync(connection, pipeline)
            # Counted from now, so that after a long standstill one sync catches up for all that were missed.
            await connection.execute(_NEXT_SYNC, *pipeline, _next(row["spec"], row["now"]))
    return len(rows)


async def delete_unclaimed(pool: Pool, objects: ObjectStore) -> int:
    """Delete raw objects that have been due, with uploads left half-way, and return how many."""
    async with pool.acquire() as connection, connection.transaction():
        keys = [row["key"] for row in await connection.fetch(_TAKE_UNCLAIMED, _AT_ONCE)]
        for key in keys:
            for upload in await objects.unfinished(key):
                await objects.abort(upload)
        await objects.delete(keys)
    return len(keys)


async def delete_retired(pool: Pool, storage: Storage, grace_seconds: float) -> int:
    """Delete tables of index versions that have been gone for as long as a reader may take, and return how many."""
    deleted = 0
    async with pool.acquire() as connection, connection.transaction():
        for row in await connection.fetch(_RETIRED, _AT_ONCE, grace_seconds):
            if await storage.empty(f"{prefix_of(row['tenant'])}index/{row['table_name']}.lance/"):
                await connection.execute(_FORGET_TABLE, *row)
                deleted += 1
    return deleted


def _next(spec: str, now: datetime) -> datetime | None:
    return next_sync(orjson.loads(spec), now)


_DUE_SYNCS = """
SELECT tenant, name, spec::text AS spec, now() FROM pipelines
WHERE next_sync_at <= now() AND NOT purging LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
"""
_NEXT_SYNC = "UPDATE pipelines SET next_sync_at = $3 WHERE tenant = $1 AND name = $2"
_TAKE_UNCLAIMED = """
DELETE FROM unclaimed_objects WHERE key IN (
    SELECT key FROM unclaimed_objects WHERE due_at <= now() LIMIT $1 FOR UPDATE SKIP LOCKED
) RETURNING key
"""
_RETIRED = """
SELECT tenant, pipeline, table_name FROM retired_tables WHERE retired_at <= now() - $2::float8 * interval '1 second'
LIMIT $1 FOR UPDATE SKIP LOCKED
"""
_FORGET_TABLE = "DELETE FROM retired_tables WHERE tenant = $1 AND pipeline = $2 AND table_name = $3"
_FORGET_CONVERSATIONS = """
DELETE FROM conversations WHERE updated_at < now() - $1::float8 * interval '1 second'
"""
