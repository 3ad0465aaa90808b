"""When readers are told of what was written: uploads at once, a sync's changes together at its end.

Writers go on from the head of the serving version; readers are told of the version of its table that was published
last. While jobs of a sync are left (`held`), heads are not published, so nobody sees half of what a sync found.
"""

from collections.abc import Sequence

from loam_gateway.adapters.postgres import Connection
from loam_gateway.pipelines.model import PipelineId


async def settle(connection: Connection, pipeline: PipelineId, grace_seconds: float) -> None:
    """Publish what may be seen, end the sync that is done, and queue what the version being built still lacks.

    What was published goes on being readable for `grace_seconds` after the next. The caller holds the pipeline's row.
    """
    if not await connection.fetchval(_HELD, *pipeline):
        if await connection.fetchval(_PUBLISH, *pipeline) is not None:
            await connection.execute(_FORGET_PUBLICATIONS, *pipeline, grace_seconds)
        await connection.execute(_SHOW_STAGED, *pipeline)
        await forget(connection, pipeline, [row["document_id"] for row in await connection.fetch(_GONE, *pipeline)])
        await connection.execute(_END_SYNC, *pipeline)
    await queue_builds(connection, pipeline)


async def queue_builds(connection: Connection, pipeline: PipelineId) -> None:
    """Queue what the version being built still lacks, or its check once that is nothing. The caller holds the row."""
    if building := await connection.fetchval(_BUILDING, *pipeline):
        await connection.execute(_QUEUE_BUILDS, *pipeline, building)
        await connection.execute(_QUEUE_CHECK, *pipeline, building)


async def forget(connection: Connection, pipeline: PipelineId, document_ids: Sequence[str]) -> None:
    """Documents that are in no published index go, and what was uploaded for them is free to be deleted."""
    if document_ids:
        await connection.execute(_FREE_OBJECTS, *pipeline, document_ids)
        await connection.execute(_DELETE_DOCUMENTS, *pipeline, document_ids)


_HELD = "SELECT EXISTS (SELECT FROM jobs WHERE tenant = $1 AND pipeline = $2 AND held)"
_PUBLISH = """
WITH published AS (
    UPDATE index_versions v SET table_version = head_table_version, chunks = head_chunks, updated_at = now()
    FROM pipelines p
    WHERE v.tenant = $1 AND v.pipeline = $2 AND (p.tenant, p.name, p.index_version) = (v.tenant, v.pipeline, v.version)
      AND v.table_version IS DISTINCT FROM v.head_table_version
    RETURNING v.version, v.table_version
)
INSERT INTO index_publications (tenant, pipeline, version, table_version) SELECT $1, $2, * FROM published
RETURNING version
"""
_FORGET_PUBLICATIONS = """
DELETE FROM index_publications old USING index_publications new
WHERE (old.tenant, old.pipeline, old.version) = (new.tenant, new.pipeline, new.version)
  AND old.tenant = $1 AND old.pipeline = $2 AND old.table_version < new.table_version
  AND new.published_at <= now() - $3::float8 * interval '1 second'
"""
_SHOW_STAGED = """
UPDATE documents SET staged = false, indexed_at = now()
WHERE tenant = $1 AND pipeline = $2 AND staged AND status <> 'Removing'
"""
_GONE = "SELECT document_id FROM documents WHERE tenant = $1 AND pipeline = $2 AND staged AND status = 'Removing'"
_END_SYNC = """
UPDATE pipelines SET sync_started_at = NULL,
    last_sync_at = CASE WHEN sync_error IS NULL THEN now() ELSE last_sync_at END
WHERE tenant = $1 AND name = $2 AND sync_started_at IS NOT NULL
"""
_BUILDING = "SELECT version FROM index_versions WHERE tenant = $1 AND pipeline = $2 AND state = 'Building'"
_QUEUE_BUILDS = """
INSERT INTO jobs (tenant, pipeline, kind, document_id)
SELECT tenant, pipeline, 'Build', document_id FROM documents d
WHERE tenant = $1 AND pipeline = $2 AND indexed_change IS NOT NULL AND built_version IS DISTINCT FROM $3
  AND status <> 'Removing'
  AND NOT EXISTS (
    SELECT FROM jobs j WHERE (j.tenant, j.pipeline, j.document_id) = (d.tenant, d.pipeline, d.document_id))
"""
_QUEUE_CHECK = """
INSERT INTO jobs (tenant, pipeline, kind)
SELECT $1, $2, 'Check' WHERE NOT EXISTS (
    SELECT FROM documents
    WHERE tenant = $1 AND pipeline = $2 AND indexed_change IS NOT NULL AND built_version IS DISTINCT FROM $3
) AND NOT EXISTS (SELECT FROM jobs WHERE tenant = $1 AND pipeline = $2 AND held)
ON CONFLICT (tenant, pipeline) WHERE kind = 'Check' DO NOTHING
"""
_FREE_OBJECTS = """
INSERT INTO unclaimed_objects (key, tenant, due_at)
SELECT raw_key, tenant, now() FROM documents
WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3::text[]) AND raw_key IS NOT NULL
ON CONFLICT (key) DO NOTHING
"""
_DELETE_DOCUMENTS = "DELETE FROM documents WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3::text[])"
