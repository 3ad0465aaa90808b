"""What a worker reports at the end of a batch, and what becomes of jobs that no worker lived to report about."""

from collections.abc import Sequence

from loam_gateway.adapters.postgres import Connection
from loam_gateway.pipelines import catalog, versions
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.outcome import OpenJob, Outcome, judge
from loam_gateway.pipelines.settings import PipelineSettings
from loam_shared.contracts.internal import Commit, IndexPointer, JobResult
from loam_shared.errors import InvalidRequestError


async def take(connection: Connection, pipeline: PipelineId, done: Commit, settings: PipelineSettings) -> None:
    """Move heads, documents and jobs as the worker says. The caller holds the pipeline's row and has seen its epoch.

    Raises InvalidRequestError for a head of a table that is no target.
    """
    for head in done.heads:
        await _move_head(connection, pipeline, head)
    outcomes = await _judged(connection, pipeline, done, settings)
    ended = [outcome for outcome in outcomes if outcome.again_in is None]
    await _put_off(connection, pipeline, [outcome for outcome in outcomes if outcome.again_in is not None])
    await _documents(connection, pipeline, ended, settings.retry_seconds)
    await _syncs(connection, pipeline, outcomes)
    await connection.execute(_DELETE, [outcome.job.id for outcome in ended if not outcome.result.unbuilt])
    await _build(connection, pipeline, ended)


async def give_up(connection: Connection, pipeline: PipelineId, max_deaths: int) -> bool:
    """End the jobs that took every worker down which had them, and say whether there were any.

    A removal is never given up, and a document that is given up is tried again with the next sync.
    """
    why = f"{max_deaths} workers in a row died or fell silent while they worked on this"
    kinds = {row["kind"] for row in await connection.fetch(_DEADLY, *pipeline, max_deaths, why)}
    if "Sync" in kinds:
        await connection.execute(_SYNC_ENDED, *pipeline, why)
    if kinds & {"Build", "Check"}:
        await versions.reject(connection, pipeline, why)
    return bool(kinds)


def number(job_id: str) -> int:
    """The id as the database knows it. Raises InvalidRequestError."""
    if not job_id.isdecimal() or len(job_id) > 18:
        raise InvalidRequestError(f"{job_id!r} is no job's id", param="jobId")
    return int(job_id)


async def _move_head(connection: Connection, pipeline: PipelineId, head: IndexPointer) -> None:
    moved = await connection.fetchval(
        _MOVE_HEAD, *pipeline, head.index_version, head.table, head.table_version, head.chunks
    )
    if moved is None:
        raise InvalidRequestError(
            f"{head.table} is not where version {head.index_version} of {pipeline.name} is written to", param="heads"
        )


async def _judged(
    connection: Connection, pipeline: PipelineId, done: Commit, settings: PipelineSettings
) -> list[Outcome]:
    results = {number(result.job_id): result for result in done.results}
    rows = await connection.fetch(_OPEN_JOBS, *pipeline, list(results), done.epoch)
    # A job that is not among the rows was superseded while it was under way: its document was replaced or removed.
    return [
        judge(
            OpenJob(*row),
            results[row["id"]],
            max_attempts=settings.max_attempts,
            retry_seconds=settings.retry_seconds,
        )
        for row in rows
    ]


async def _put_off(connection: Connection, pipeline: PipelineId, again: Sequence[Outcome]) -> None:
    explained = [one for one in again if one.job.document_id is not None]
    await connection.executemany(_EXPLAIN, [(*pipeline, one.job.document_id, _error(one.result)) for one in explained])
    await connection.execute(_LATER, [one.job.id for one in again], [one.again_in for one in again])
    if any(one.job.kind == "Build" and not one.result.retry for one in again):
        # What could be indexed once cannot be read now: the source may know more.
        await catalog.queue_sync(connection, pipeline)


async def _documents(
    connection: Connection, pipeline: PipelineId, ended: Sequence[Outcome], retry_seconds: float
) -> None:
    ingested = [one for one in ended if one.job.kind == "Ingest"]
    removed = [one.job.document_id for one in ended if one.job.kind == "Remove"]
    if ingested or removed:
        change = await connection.fetchval(_NEXT_CHANGE, *pipeline)
        rows = [(*pipeline, one.job.document_id, *_facts(one.result), change) for one in ingested]
        await connection.executemany(_INGESTED, rows)
        await connection.execute(_REMOVED, *pipeline, removed)
    unbuilt = [one.job.id for one in ingested if one.result.unbuilt]
    await connection.execute(_BUILD_LATER, unbuilt, retry_seconds)
    built = [one.job.document_id for one in ended if one.result.state == "Done" and not one.result.unbuilt]
    await connection.execute(_BUILT, *pipeline, built)


async def _syncs(connection: Connection, pipeline: PipelineId, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.job.kind == "Sync":
            await connection.execute(_SYNC_ENDED, *pipeline, _error(outcome.result))


async def _build(connection: Connection, pipeline: PipelineId, ended: Sequence[Outcome]) -> None:
    """Put the version being built into service, or out of it, where the report says so."""
    failed = next((one for one in ended if one.job.kind in {"Build", "Check"} and one.result.state == "Failed"), None)
    if failed is not None:
        name = await connection.fetchval(_NAME, *pipeline, failed.job.document_id)
        why = _error(failed.result) or ""
        await versions.reject(connection, pipeline, f"{name}: {why}" if name else why)
    elif any(one.job.kind == "Check" for one in ended):
        complete = await connection.fetchval(_COMPLETE, *pipeline)
        if complete is not None:
            await versions.swap(connection, pipeline, complete)


def _error(result: JobResult) -> str | None:
    return None if result.state == "Done" else result.error or "the worker gave no reason"


def _facts(result: JobResult) -> tuple[object, ...]:
    status = "Ready" if result.state == "Done" else "Failed"
    in_index = result.state == "Done" or (None if result.chunks is None else False)
    times = (result.parse_seconds, result.embed_seconds)
    return status, result.title, result.pages, result.chunks, _error(result), result.retry, *times, in_index


_MOVE_HEAD = """
UPDATE index_versions v SET head_table_version = $5, head_chunks = $6 FROM pipelines p
WHERE v.tenant = $1 AND v.pipeline = $2 AND v.version = $3 AND v.table_name = $4
  AND (p.tenant, p.name) = (v.tenant, v.pipeline) AND (v.version = p.index_version OR v.state = 'Building')
RETURNING true
"""
_OPEN_JOBS = """
SELECT id, kind, document_id, attempt FROM jobs WHERE tenant = $1 AND pipeline = $2 AND id = ANY($3) AND epoch = $4
"""
_DELETE = "DELETE FROM jobs WHERE id = ANY($1)"
_NEXT_CHANGE = "UPDATE pipelines SET changes = changes + 1 WHERE tenant = $1 AND name = $2 RETURNING changes"
# A document that failed for now keeps what is indexed of it ($12 is NULL then), one that cannot be read has nothing.
_INGESTED = """
UPDATE documents SET status = $4, title = $5, pages = $6, chunks = $7, error = $8, retryable = $9,
    parse_seconds = $10, embed_seconds = $11, staged = ($4 = 'Ready'), updated_at = now(),
    indexed_change = CASE WHEN $12::boolean THEN $13::bigint WHEN $12 IS NULL THEN indexed_change END,
    built_version = CASE WHEN $12 IS NULL THEN built_version END
WHERE tenant = $1 AND pipeline = $2 AND document_id = $3
"""
_REMOVED = """
UPDATE documents SET staged = true, indexed_change = NULL WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3)
"""
_BUILT = """
UPDATE documents d SET built_version = v.version FROM index_versions v
WHERE d.tenant = $1 AND d.pipeline = $2 AND d.document_id = ANY($3::text[])
  AND (v.tenant, v.pipeline, v.state) = ($1, $2, 'Building')
"""
_BUILD_LATER = """
UPDATE jobs SET kind = 'Build', held = false, attempt = 0, epoch = NULL,
    due_at = now() + $2::float8 * interval '1 second'
WHERE id = ANY($1)
"""
_EXPLAIN = """
UPDATE documents SET error = $4, updated_at = now() WHERE tenant = $1 AND pipeline = $2 AND document_id = $3
"""
_LATER = """
UPDATE jobs SET epoch = NULL, held = false, due_at = now() + later.seconds * interval '1 second'
FROM unnest($1::bigint[], $2::float8[]) AS later (id, seconds)
WHERE jobs.id = later.id AND NOT (jobs.kind = 'Sync' AND EXISTS (
    SELECT FROM jobs waiting WHERE (waiting.tenant, waiting.pipeline) = (jobs.tenant, jobs.pipeline)
    AND waiting.kind = 'Sync' AND waiting.epoch IS NULL))
"""
_SYNC_ENDED = """
UPDATE pipelines SET sync_error = $3, sync_started_at = coalesce(sync_started_at, now())
WHERE tenant = $1 AND name = $2
"""
_NAME = "SELECT name FROM documents WHERE tenant = $1 AND pipeline = $2 AND document_id = $3"
_COMPLETE = """
SELECT version FROM index_versions v WHERE tenant = $1 AND pipeline = $2 AND state = 'Building' AND NOT EXISTS (
    SELECT FROM documents d WHERE (d.tenant, d.pipeline) = (v.tenant, v.pipeline)
    AND d.indexed_change IS NOT NULL AND d.built_version IS DISTINCT FROM v.version)
"""
_DEADLY = """
WITH deadly AS (
    DELETE FROM jobs
    WHERE tenant = $1 AND pipeline = $2 AND kind <> 'Remove' AND epoch IS NOT NULL AND attempt >= $3
    RETURNING kind, document_id
), explained AS (
    UPDATE documents d SET status = 'Failed', error = $4, retryable = true, updated_at = now() FROM deadly
    WHERE d.tenant = $1 AND d.pipeline = $2 AND d.document_id = deadly.document_id AND deadly.kind = 'Ingest'
)
SELECT DISTINCT kind FROM deadly
"""
