"""The end of a pipeline: its objects, its index and its rows."""

import re

from loam_gateway.adapters.postgres import Pool
from loam_gateway.directory.changes import Act, audit
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.storage import Storage
from loam_gateway.storage.policy import prefix_of


async def purge(pool: Pool, storage: Storage, pipeline: PipelineId, act: Act, *, uid: str) -> bool:
    """Delete the pipeline that `uid` owns and say whether all is gone; False asks to be called again.

    A pipeline of another `uid`, or data retained from a former tenant, is left alone.
    """
    if not await _close(pool, pipeline, act, uid):
        return True
    for prefix in await _prefixes(storage, pipeline):
        if not await storage.empty(prefix):
            return False
    await pool.execute(_DELETE, *pipeline, uid)
    return True


async def _close(pool: Pool, pipeline: PipelineId, act: Act, uid: str) -> bool:
    """Let nobody work on it any more. False when there is no such pipeline of `uid`."""
    async with pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(_FIND, *pipeline, uid)
        if row is not None and not row["purging"]:
            await connection.execute(_CLOSE, *pipeline)
            await audit(connection, act, "pipeline.delete", pipeline.tenant, pipeline.name, row["spec"], None)
        return row is not None


async def _prefixes(storage: Storage, pipeline: PipelineId) -> list[str]:
    """Where the pipeline keeps anything: its raw objects, and the tables of exactly its own index versions."""
    root = prefix_of(pipeline.tenant)
    own_table = re.compile(re.escape(f"{root}index/{pipeline.name}-v") + r"\d+\.lance/")
    tables = await storage.objects.folders(f"{root}index/{pipeline.name}-v")
    return [f"{root}raw/{pipeline.name}/", *(table for table in tables if own_table.fullmatch(table))]


_FIND = "SELECT purging, spec FROM pipelines WHERE tenant = $1 AND name = $2 AND uid = $3 FOR NO KEY UPDATE"
_CLOSE = """
UPDATE pipelines SET purging = true, epoch = epoch + 1, lease_worker = NULL, lease_expires_at = NULL
WHERE tenant = $1 AND name = $2
"""
_DELETE = "DELETE FROM pipelines WHERE tenant = $1 AND name = $2 AND uid = $3"
