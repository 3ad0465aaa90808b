"""Which pipelines there are, what they are made of, and how far they are.

One rule keeps this room free of deadlocks and lost updates: whoever changes a pipeline's documents, jobs or versions
first takes the pipeline's row, with `locked`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.directory.changes import Act, audit
from loam_gateway.pipelines.model import PipelineId, Serving, next_sync
from loam_shared.contracts.admin import PipelinePut, PipelineState
from loam_shared.contracts.internal import IndexPointer
from loam_shared.errors import ConflictError, NotFoundError


async def put(pool: Pool, pipeline: PipelineId, desired: PipelinePut, act: Act) -> PipelineState:
    """Make the pipeline as desired; a new one, or one whose sources changed, is synced.

    Raises ConflictError when another object's data lies under the name, NotFoundError without the tenant.
    """
    async with pool.acquire() as connection, connection.transaction():
        await _register(connection, pipeline, desired)
        row = await connection.fetchrow(_LOCK, *pipeline)
        _check_owner(pipeline, row, desired.uid)
        await _update(connection, pipeline, row, desired)
        await _write_down(connection, pipeline, row, desired, act)
        return (await _states(connection, *pipeline))[str(pipeline)]


async def state(pool: Pool, pipeline: PipelineId) -> PipelineState:
    """How far a pipeline is. Raises NotFoundError."""
    async with pool.acquire() as connection:
        found = await _states(connection, *pipeline)
    if str(pipeline) not in found:
        raise _unknown(pipeline)
    return found[str(pipeline)]


async def states(pool: Pool) -> dict[str, PipelineState]:
    """How far every pipeline is, by ``tenant/pipeline``."""
    async with pool.acquire() as connection:
        return await _states(connection, None, None)


async def spec(pool: Pool, pipeline: PipelineId) -> dict[str, Any]:
    """The spec as in the manifest. Raises NotFoundError."""
    text = await pool.fetchval(_SPEC, *pipeline)
    if text is None:
        raise _unknown(pipeline)
    return dict(orjson.loads(text))


async def serving(pool: Pool, pipeline: PipelineId) -> Serving:
    """What a question to the pipeline needs. Raises NotFoundError."""
    row = await pool.fetchrow(_SERVING, *pipeline)
    if row is None:
        raise _unknown(pipeline)
    return Serving(row["endpoint"], pointer(row))


async def locked(connection: Connection, pipeline: PipelineId) -> asyncpg.Record:
    """The pipeline's row, held until the end of the transaction. Raises NotFoundError."""
    row = await connection.fetchrow(_LOCK, *pipeline)
    if row is None or row["purging"] or row["uid"] is None:
        raise _unknown(pipeline)
    return row


async def queue_sync(connection: Connection, pipeline: PipelineId) -> None:
    """Ask for a look at the sources, unless one waits already. The caller holds the pipeline's row."""
    await connection.execute(_QUEUE_SYNC, *pipeline)
    await announce(connection, pipeline)


async def queue_ingests(connection: Connection, pipeline: PipelineId, document_ids: Sequence[str]) -> None:
    """Ask for documents to be ingested anew, instead of whatever was to be done for them. The caller holds the row."""
    await connection.execute(_QUEUE, *pipeline, "Ingest", document_ids)
    await announce(connection, pipeline)


async def queue_removals(connection: Connection, pipeline: PipelineId, document_ids: Sequence[str]) -> None:
    """Ask for documents to be removed, instead of whatever was to be done for them. The caller holds the row."""
    await connection.execute(_MARK_REMOVING, *pipeline, document_ids)
    await connection.execute(_QUEUE, *pipeline, "Remove", document_ids)
    await announce(connection, pipeline)


async def announce(connection: Connection, pipeline: PipelineId) -> None:
    """Wake who waits for this pipeline's work, once the transaction has committed."""
    await connection.execute("SELECT pg_notify('loam_work', $1)", str(pipeline))


def pointer(row: asyncpg.Record) -> IndexPointer | None:
    """The index that counts, from a row that carries the columns of the current version."""
    if row["table_name"] is None:
        return None
    return IndexPointer(
        table=row["table_name"],
        table_version=row["table_version"],
        chunks=row["chunks"],
        index_version=row["index_version"],
    )


def _unknown(pipeline: PipelineId) -> NotFoundError:
    return NotFoundError(f"there is no pipeline {pipeline.name}", param="name")


async def _register(connection: Connection, pipeline: PipelineId, desired: PipelinePut) -> None:
    try:
        # A savepoint, so that a missing tenant does not spoil the transaction before it is told.
        async with connection.transaction():
            await connection.execute(_REGISTER, *pipeline, desired.uid, desired.endpoint)
    except asyncpg.ForeignKeyViolationError as error:
        raise NotFoundError(f"the tenant {pipeline.tenant} is not registered", param="tenant") from error


def _check_owner(pipeline: PipelineId, row: asyncpg.Record | None, uid: str) -> None:
    if row is None or row["purging"]:
        raise ConflictError(f"the former pipeline {pipeline.name} is still being deleted")
    if row["uid"] not in {None, uid}:
        raise ConflictError(f"the pipeline {pipeline.name} belongs to another object; delete that one first")


async def _update(
    connection: Connection, pipeline: PipelineId, row: asyncpg.Record | None, desired: PipelinePut
) -> None:
    assert row is not None
    before = orjson.loads(row["spec"])
    next_at = row["next_sync_at"]
    if next_at is None or before.get("sync") != desired.spec.get("sync"):
        next_at = next_sync(desired.spec, datetime.now(UTC))
    spec_text = orjson.dumps(desired.spec).decode()
    await connection.execute(_UPDATE, *pipeline, desired.uid, spec_text, desired.endpoint, next_at)
    if row["uid"] is None or before.get("sources") != desired.spec.get("sources"):
        await queue_sync(connection, pipeline)


async def _write_down(
    connection: Connection, pipeline: PipelineId, row: asyncpg.Record | None, desired: PipelinePut, act: Act
) -> None:
    """Leave a line in the audit log, unless nothing changed."""
    assert row is not None
    before = None if row["uid"] is None or row["spec"] == "{}" else orjson.loads(row["spec"])
    if before != desired.spec:
        facts = [None if spec is None else orjson.dumps(spec).decode() for spec in (before, desired.spec)]
        await audit(connection, act, "pipeline.put", pipeline.tenant, pipeline.name, *facts)


async def _states(connection: Connection, tenant: str | None, name: str | None) -> dict[str, PipelineState]:
    rows = await connection.fetch(_STATES, tenant, name)
    return {f"{row['tenant']}/{row['name']}": _state(row) for row in rows}


def _state(row: asyncpg.Record) -> PipelineState:
    return PipelineState(
        documents=row["documents"],
        pending=row["pending"],
        failed=row["failed"],
        chunks=row["chunks"],
        index_version=row["index_version"],
        last_sync_time=row["last_sync_at"],
        sync_error=row["sync_error"],
    )


_REGISTER = """
INSERT INTO pipelines (tenant, name, uid, endpoint, spec) VALUES ($1, $2, $3, $4, '{}') ON CONFLICT DO NOTHING
"""
_LOCK = """
SELECT uid, spec::text AS spec, purging, epoch, index_version, next_sync_at
FROM pipelines WHERE tenant = $1 AND name = $2 FOR NO KEY UPDATE
"""
_UPDATE = """
UPDATE pipelines SET uid = $3, spec = $4::text::jsonb, endpoint = $5, next_sync_at = $6 WHERE tenant = $1 AND name = $2
"""
_QUEUE_SYNC = "INSERT INTO jobs (tenant, pipeline, kind) VALUES ($1, $2, 'Sync') ON CONFLICT DO NOTHING"
# Without an epoch the job is nobody's, so what a worker that is at it right now reports of it no longer counts; the new
# id puts it at the end of the line.
_QUEUE = """
INSERT INTO jobs (tenant, pipeline, kind, document_id) SELECT $1, $2, $3, * FROM unnest($4::text[])
ON CONFLICT (tenant, pipeline, document_id) WHERE document_id IS NOT NULL DO UPDATE
SET id = excluded.id, kind = excluded.kind, attempt = 0, epoch = NULL, due_at = now()
"""
_MARK_REMOVING = """
UPDATE documents SET status = 'Removing', updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3)
"""
_SPEC = "SELECT spec::text FROM pipelines WHERE tenant = $1 AND name = $2 AND NOT purging AND uid IS NOT NULL"
_SERVING = """
SELECT p.endpoint, p.index_version, v.table_name, v.table_version, v.chunks
FROM pipelines p
LEFT JOIN index_versions v ON (v.tenant, v.pipeline, v.version) = (p.tenant, p.name, p.index_version)
WHERE p.tenant = $1 AND p.name = $2 AND NOT p.purging AND p.uid IS NOT NULL
"""
_STATES = """
SELECT p.tenant, p.name, p.last_sync_at, p.sync_error,
       coalesce(p.index_version, 0) AS index_version,
       coalesce(v.chunks, 0) AS chunks,
       d.documents, d.pending, d.failed
FROM pipelines p
LEFT JOIN index_versions v ON (v.tenant, v.pipeline, v.version) = (p.tenant, p.name, p.index_version)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status <> 'Removing') AS documents,
           count(*) FILTER (WHERE status IN ('Pending', 'Removing')) AS pending,
           count(*) FILTER (WHERE status = 'Failed') AS failed
    FROM documents WHERE tenant = p.tenant AND pipeline = p.name
) d
WHERE ($1::text IS NULL OR p.tenant = $1) AND ($2::text IS NULL OR p.name = $2)
  AND NOT p.purging AND p.uid IS NOT NULL
"""
