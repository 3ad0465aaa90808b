"""Index versions: what there is, and going back to one."""

from datetime import datetime

import asyncpg

from loam_gateway.adapters.postgres import Pool
from loam_gateway.pipelines import catalog
from loam_gateway.pipelines.model import PipelineId
from loam_shared.contracts import Wire
from loam_shared.errors import NotFoundError


class IndexVersion(Wire):
    """One version of a pipeline's index; `current` is the one that answers come from."""

    version: int
    chunks: int
    current: bool
    created_at: datetime
    updated_at: datetime


async def versions(pool: Pool, pipeline: PipelineId) -> list[IndexVersion]:
    """The versions that are kept, newest first. Raises NotFoundError."""
    await catalog.spec(pool, pipeline)
    return [_version(row) for row in await pool.fetch(_VERSIONS, *pipeline)]


async def rollback(pool: Pool, pipeline: PipelineId, version: int) -> IndexVersion:
    """Answer from `version` from now on; a worker that is at another one loses its lease. Raises NotFoundError."""
    async with pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, pipeline)
        rows = await connection.fetch(_VERSIONS, *pipeline)
        found = next((row for row in rows if row["version"] == version), None)
        if found is None:
            kept = ", ".join(str(row["version"]) for row in rows) or "none"
            raise NotFoundError(f"there is no index version {version} to go back to; kept: {kept}", param="version")
        if not found["current"]:
            await connection.execute(_ROLL_BACK, *pipeline, version)
            await catalog.announce(connection, pipeline)
        return _version(found).model_copy(update={"current": True})


def _version(row: asyncpg.Record) -> IndexVersion:
    return IndexVersion(**dict(row))


_VERSIONS = """
SELECT v.version, v.chunks, v.version = p.index_version AS current, v.created_at, v.updated_at
FROM index_versions v JOIN pipelines p ON (p.tenant, p.name) = (v.tenant, v.pipeline)
WHERE v.tenant = $1 AND v.pipeline = $2 ORDER BY v.version DESC
"""
_ROLL_BACK = """
UPDATE pipelines SET index_version = $3, epoch = epoch + 1, lease_worker = NULL, lease_expires_at = NULL
WHERE tenant = $1 AND name = $2
"""
