"""Which pipelines there are, what they are made of, and how far they are.

One rule keeps this room free of deadlocks and lost updates: whoever changes a pipeline's documents, jobs or versions
first takes the pipeline's row, with `locked`.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.pipelines.model import PipelineId, Serving
from loam_shared.contracts.admin import Building, PipelineState
from loam_shared.contracts.internal import Embedding, IndexPointer
from loam_shared.errors import NotFoundError


async def state(pool: Pool, pipeline: PipelineId) -> PipelineState:
    """How far a pipeline is. Raises NotFoundError."""
    async with pool.acquire() as connection:
        found = await states_of(connection, *pipeline)
    if str(pipeline) not in found:
        raise _unknown(pipeline)
    return found[str(pipeline)]


async def states(pool: Pool, tenant: str | None = None) -> dict[str, PipelineState]:
    """How far every pipeline is, of all tenants or of one, by ``tenant/pipeline``."""
    async with pool.acquire() as connection:
        return await states_of(connection, tenant, None)


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


async def row_of(connection: Connection, pipeline: PipelineId) -> asyncpg.Record | None:
    """The pipeline's row as `locked` gives it, also of one that is being deleted or has no manifest; None without."""
    return await connection.fetchrow(_LOCK, *pipeline)


async def locked(connection: Connection, pipeline: PipelineId) -> asyncpg.Record:
    """The pipeline's row, held until the end of the transaction. Raises NotFoundError."""
    row = await row_of(connection, pipeline)
    if row is None or row["purging"] or row["uid"] is None:
        raise _unknown(pipeline)
    return row


async def queue_sync(connection: Connection, pipeline: PipelineId) -> None:
    """Ask for a look at the sources, unless one waits already. The caller holds the pipeline's row."""
    await connection.execute(_QUEUE_SYNC, *pipeline)
    await announce(connection, pipeline)


async def queue_ingests(
    connection: Connection, pipeline: PipelineId, document_ids: Sequence[str], *, held: bool = False
) -> None:
    """Ask for documents to be ingested anew, instead of whatever was to be done for them. The caller holds the row.

    What is `held` belongs to a sync, whose changes readers see all at once.
    """
    await connection.execute(_MARK_PENDING, *pipeline, document_ids)
    await connection.execute(_QUEUE, *pipeline, "Ingest", document_ids, held)
    await announce(connection, pipeline)


async def queue_removals(
    connection: Connection, pipeline: PipelineId, document_ids: Sequence[str], *, held: bool = False
) -> None:
    """Ask for documents to be removed, instead of whatever was to be done for them. As for `queue_ingests`."""
    await connection.execute(_MARK_REMOVING, *pipeline, document_ids)
    await connection.execute(_QUEUE, *pipeline, "Remove", document_ids, held)
    await announce(connection, pipeline)


async def announce(connection: Connection, pipeline: PipelineId) -> None:
    """Wake who waits for this pipeline's work, once the transaction has committed."""
    await connection.execute("SELECT pg_notify('loam_work', $1)", str(pipeline))


def pointer(row: asyncpg.Record) -> IndexPointer | None:
    """The index that readers are told of, from a row that carries the columns of the version that serves."""
    if row["table_version"] is None:
        return None
    return IndexPointer(
        table=row["table_name"],
        table_version=row["table_version"],
        chunks=row["chunks"],
        index_version=row["index_version"],
        embedding=Embedding.model_validate_json(row["embedding"]),
    )


def _unknown(pipeline: PipelineId) -> NotFoundError:
    return NotFoundError(f"there is no pipeline {pipeline.name}", param="name")


async def states_of(connection: Connection, tenant: str | None, name: str | None) -> dict[str, PipelineState]:
    """How far pipelines are, by ``tenant/pipeline``; all of them where neither is given."""
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
        building=_building(row),
        rejected=row["rejected"],
        queued=row["queued"],
    )


def _building(row: asyncpg.Record) -> Building | None:
    if row["building"] is None:
        return None
    return Building(index_version=row["building"], done=row["built"], documents=row["indexed"])


_LOCK = """
SELECT uid, spec::text AS spec, purging, epoch, index_version, next_sync_at, last_sync_at, versions, changes,
       declined_recipe::text AS declined_recipe
FROM pipelines WHERE tenant = $1 AND name = $2 FOR NO KEY UPDATE
"""
_QUEUE_SYNC = "INSERT INTO jobs (tenant, pipeline, kind) VALUES ($1, $2, 'Sync') ON CONFLICT DO NOTHING"
# Without an epoch the job is nobody's, so what a worker that is at it right now reports of it no longer counts; the new
# id puts it at the end of the line.
_QUEUE = """
INSERT INTO jobs (tenant, pipeline, kind, document_id, held) SELECT $1, $2, $3, *, $5 FROM unnest($4::text[])
ON CONFLICT (tenant, pipeline, document_id) WHERE document_id IS NOT NULL DO UPDATE
SET id = excluded.id, kind = excluded.kind, held = excluded.held, attempt = 0, epoch = NULL, due_at = now()
"""
_MARK_PENDING = """
UPDATE documents SET status = 'Pending', staged = false, retryable = false, error = NULL, updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3)
"""
_MARK_REMOVING = """
UPDATE documents SET status = 'Removing', staged = false, updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3)
"""
_SPEC = "SELECT spec::text FROM pipelines WHERE tenant = $1 AND name = $2 AND NOT purging AND uid IS NOT NULL"
_SERVING = """
SELECT p.endpoint, p.index_version, v.table_name, v.table_version, v.chunks, v.recipe ->> 'embedding' AS embedding
FROM pipelines p
LEFT JOIN index_versions v ON (v.tenant, v.pipeline, v.version) = (p.tenant, p.name, p.index_version)
WHERE p.tenant = $1 AND p.name = $2 AND NOT p.purging AND p.uid IS NOT NULL
"""
_STATES = """
SELECT p.tenant, p.name, p.last_sync_at, p.sync_error,
       CASE WHEN v.table_version IS NULL THEN 0 ELSE p.index_version END AS index_version,
       coalesce(v.chunks, 0) AS chunks,
       d.documents, d.pending, d.failed, d.indexed, b.version AS building, d.built,
       (SELECT reason FROM index_versions r WHERE (r.tenant, r.pipeline) = (p.tenant, p.name)
           AND r.state = 'Rejected' AND r.version = p.versions) AS rejected,
       (SELECT count(*) FROM jobs WHERE (tenant, pipeline) = (p.tenant, p.name) AND due_at <= now()) AS queued
FROM pipelines p
LEFT JOIN index_versions v ON (v.tenant, v.pipeline, v.version) = (p.tenant, p.name, p.index_version)
LEFT JOIN index_versions b ON (b.tenant, b.pipeline, b.state) = (p.tenant, p.name, 'Building')
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status <> 'Removing') AS documents,
           count(*) FILTER (WHERE status IN ('Pending', 'Removing') OR staged) AS pending,
           count(*) FILTER (WHERE status = 'Failed') AS failed,
           count(indexed_change) AS indexed,
           count(indexed_change) FILTER (WHERE built_version = b.version) AS built
    FROM documents WHERE tenant = p.tenant AND pipeline = p.name
) d
WHERE ($1::text IS NULL OR p.tenant = $1) AND ($2::text IS NULL OR p.name = $2)
  AND NOT p.purging AND p.uid IS NOT NULL
"""
