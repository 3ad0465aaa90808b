"""A RagPipeline's manifest, as the operator tells of it: what is registered, and what follows from a change."""

from datetime import UTC, datetime

import asyncpg
import orjson

from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.directory.changes import Act, audit
from loam_gateway.pipelines import catalog, versions
from loam_gateway.pipelines.model import PipelineId, next_sync
from loam_shared.contracts.admin import PipelinePut, PipelineState
from loam_shared.errors import ConflictError, NotFoundError


async def put(pool: Pool, pipeline: PipelineId, desired: PipelinePut, act: Act) -> PipelineState:
    """Make the pipeline as desired; a new one, or one whose sources changed, is synced.

    Another recipe than that of its index has a version built by that one. Raises ConflictError when another object's
    data lies under the name, NotFoundError without the tenant, InvalidRequestError for a spec without a recipe.
    """
    async with pool.acquire() as connection, connection.transaction():
        await _register(connection, pipeline, desired)
        row = await catalog.row_of(connection, pipeline)
        _check_owner(pipeline, row, desired.uid)
        await _update(connection, pipeline, row, desired)
        await _write_down(connection, pipeline, row, desired, act)
        return (await catalog.states_of(connection, *pipeline))[str(pipeline)]


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
    await versions.follow(connection, pipeline, row, desired.spec)
    if row["uid"] is None or before.get("sources") != desired.spec.get("sources"):
        await catalog.queue_sync(connection, pipeline)


async def _write_down(
    connection: Connection, pipeline: PipelineId, row: asyncpg.Record | None, desired: PipelinePut, act: Act
) -> None:
    """Leave a line in the audit log, unless nothing changed."""
    assert row is not None
    before = None if row["uid"] is None or row["spec"] == "{}" else orjson.loads(row["spec"])
    if before != desired.spec:
        facts = [None if spec is None else orjson.dumps(spec).decode() for spec in (before, desired.spec)]
        await audit(connection, act, "pipeline.put", pipeline.tenant, pipeline.name, *facts)


_REGISTER = """
INSERT INTO pipelines (tenant, name, uid, endpoint, spec) VALUES ($1, $2, $3, $4, '{}') ON CONFLICT DO NOTHING
"""
_UPDATE = """
UPDATE pipelines SET uid = $3, spec = $4::text::jsonb, endpoint = $5, next_sync_at = $6 WHERE tenant = $1 AND name = $2
"""
