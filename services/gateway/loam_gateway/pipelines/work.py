"""Work for a pipeline's ingestion workers: claimed under a lease, committed only by the newest epoch.

The lease is the pair (epoch, lease_expires_at) on the pipeline's row. Claiming raises the epoch; every later word of
the worker carries it and is refused when it is no longer the pipeline's. A job is under way while its own epoch is the
pipeline's, so when a worker dies nothing has to be put back: the next claim, under the next epoch, just finds it again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.pipelines import catalog
from loam_gateway.pipelines.differ import Differences, KnownDocument, compare
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.outcome import OpenJob, Outcome, judge
from loam_gateway.pipelines.settings import PipelineSettings
from loam_gateway.pipelines.wakeups import Wakeups
from loam_shared.contracts.internal import (
    Claim,
    Commit,
    IndexPointer,
    Job,
    JobResult,
    Register,
    Registered,
    SourceDocument,
    Work,
)
from loam_shared.errors import ConflictError, InvalidRequestError

_LOOK_AGAIN_SECONDS = 5.0
_MANY = 500


class WorkQueue:
    """The jobs of all pipelines. Every method raises NotFoundError for a pipeline that is not there."""

    def __init__(self, pool: Pool, wakeups: Wakeups, settings: PipelineSettings) -> None:
        self._pool = pool
        self._wakeups = wakeups
        self._settings = settings

    async def claim(self, pipeline: PipelineId, asked: Claim) -> Work | None:
        """Jobs under a new lease, as soon as there are some and nobody else holds it; None when the time is up."""
        deadline = asyncio.get_running_loop().time() + asked.wait_seconds
        with self._wakeups.waiting(pipeline) as woken:
            while True:
                woken.clear()
                if work := await self._take(pipeline, asked):
                    return work
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    return None
                await _wait(woken, min(left, await self._pause(pipeline)))

    async def renew(self, pipeline: PipelineId, epoch: int) -> None:
        """Start the lease's time anew. Raises ConflictError when the lease is lost."""
        async with self._leased(pipeline, epoch) as connection:
            await connection.execute(_EXTEND, *pipeline, self._settings.lease_seconds)

    async def register(self, pipeline: PipelineId, listing: Register) -> Registered:
        """Queue what differs between the sources and what is known of them. Raises ConflictError."""
        async with self._leased(pipeline, listing.epoch) as connection:
            if not await connection.fetchval(_IS_SYNC, *pipeline, _number(listing.job_id), listing.epoch):
                raise ConflictError(f"the sync {listing.job_id} is not under way under epoch {listing.epoch}")
            known = [KnownDocument(*row) for row in await connection.fetch(_KNOWN, *pipeline)]
            found = compare(pipeline, listing.documents, known)
            await _queue_differences(connection, pipeline, found)
        return Registered(
            added=len(found.added), changed=len(found.changed), removed=len(found.removed), unchanged=found.unchanged
        )

    async def commit(self, pipeline: PipelineId, done: Commit) -> None:
        """Move the index pointer and the jobs' and documents' states, all or nothing. Raises ConflictError."""
        async with self._leased(pipeline, done.epoch) as connection:
            if done.index is not None:
                await _point(connection, pipeline, done.index)
            outcomes = await self._judged(connection, pipeline, done)
            await _apply(connection, pipeline, outcomes)
            if done.release:
                await _release(connection, pipeline, done.epoch)
            else:
                await connection.execute(_EXTEND, *pipeline, self._settings.lease_seconds)

    async def _take(self, pipeline: PipelineId, asked: Claim) -> Work | None:
        async with self._pool.acquire() as connection, connection.transaction():
            lease = await connection.fetchrow(_TAKE_LEASE, *pipeline, asked.worker, self._settings.lease_seconds)
            if lease is None:
                return None
            await _give_up(connection, pipeline, self._settings.max_attempts)
            rows = await connection.fetch(_HAND_OUT, *pipeline, lease["epoch"], asked.max_jobs)
            if not rows:
                await connection.execute(_END_LEASE, *pipeline)
                return None
            serving = await connection.fetchrow(_POINTER, *pipeline)
        jobs = tuple(_job(row) for row in sorted(rows, key=lambda row: int(row["id"])))
        return Work(
            epoch=lease["epoch"],
            lease_seconds=self._settings.lease_seconds,
            index=catalog.pointer(serving) if serving else None,
            jobs=jobs,
        )

    async def _pause(self, pipeline: PipelineId) -> float:
        """Seconds until the next job is due and the present lease, if any, has run out."""
        seconds = await self._pool.fetchval(_NEXT_CHANCE, *pipeline)
        return _LOOK_AGAIN_SECONDS if seconds is None else min(max(float(seconds), 0.01), _LOOK_AGAIN_SECONDS)

    async def _judged(self, connection: Connection, pipeline: PipelineId, done: Commit) -> list[Outcome]:
        results = {_number(result.job_id): result for result in done.results}
        rows = await connection.fetch(_OPEN_JOBS, *pipeline, list(results), done.epoch)
        # A job that is not among the rows was superseded while it was under way: its document was replaced or removed.
        return [
            judge(
                OpenJob(*row),
                results[row["id"]],
                max_attempts=self._settings.max_attempts,
                retry_seconds=self._settings.retry_seconds,
            )
            for row in rows
        ]

    @asynccontextmanager
    async def _leased(self, pipeline: PipelineId, epoch: int) -> AsyncIterator[Connection]:
        """A transaction that holds the pipeline's row and exists only under its present epoch."""
        async with self._pool.acquire() as connection, connection.transaction():
            present = (await catalog.locked(connection, pipeline))["epoch"]
            if present != epoch:
                raise ConflictError(f"the lease of epoch {epoch} is lost: the pipeline is at epoch {present}")
            yield connection


async def _wait(woken: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(woken.wait(), seconds)


def _number(job_id: str) -> int:
    if not job_id.isdecimal() or len(job_id) > 18:
        raise InvalidRequestError(f"{job_id!r} is no job's id", param="jobId")
    return int(job_id)


def _job(row: asyncpg.Record) -> Job:
    return Job(
        id=str(row["id"]),
        kind=row["kind"],
        document_id=row["document_id"],
        name=row["name"],
        media_type=row["media_type"],
        raw_key=row["raw_key"],
        source_bucket=row["bucket"],
        source_key=row["name"] if row["source"] in {"S3", "ConfigMap"} else None,
        attempt=row["attempt"],
    )


async def _give_up(connection: Connection, pipeline: PipelineId, max_attempts: int) -> None:
    """End the jobs that took every worker down which had them; a removal is never given up."""
    why = f"{max_attempts} workers in a row died or fell silent while they worked on this"
    await connection.execute(_FAIL_DEADLY, *pipeline, max_attempts, why)
    await connection.execute(_FAIL_DEADLY_SYNC, *pipeline, max_attempts, why)


async def _queue_differences(connection: Connection, pipeline: PipelineId, found: Differences) -> None:
    wanted = found.added | found.changed
    if wanted:
        await connection.execute(_UPSERT_SEEN, *pipeline, *_columns(wanted.items()))
        if len(wanted) >= _MANY:
            # With statistics from before, PostgreSQL looks documents up by the wrong index, which takes quadratic time.
            await connection.execute("ANALYZE documents")
        await catalog.queue_ingests(connection, pipeline, list(wanted))
    if found.removed:
        await catalog.queue_removals(connection, pipeline, found.removed)


def _columns(documents: Iterable[tuple[str, SourceDocument]]) -> tuple[list[object], ...]:
    rows = [(key, one.source, one.bucket, one.key, one.etag, one.size) for key, one in documents]
    return tuple(list(column) for column in zip(*rows, strict=True))


async def _point(connection: Connection, pipeline: PipelineId, index: IndexPointer) -> None:
    if index.table != f"{pipeline.name}-v{index.index_version}":
        raise InvalidRequestError(
            f"version {index.index_version} of {pipeline.name} lies in {pipeline.name}-v{index.index_version}, "
            f"not in {index.table}",
            param="index.table",
        )
    await connection.execute(
        _SAVE_VERSION, *pipeline, index.index_version, index.table, index.table_version, index.chunks
    )
    await connection.execute(_MAKE_CURRENT, *pipeline, index.index_version)


async def _apply(connection: Connection, pipeline: PipelineId, outcomes: Sequence[Outcome]) -> None:
    again = [outcome for outcome in outcomes if outcome.again_in is not None]
    ended = [outcome for outcome in outcomes if outcome.again_in is None]
    for outcome in outcomes:
        if outcome.job.kind == "Sync":
            await connection.execute(_SYNCED, *pipeline, _error(outcome.result))
    await connection.executemany(
        _DOCUMENT_INGESTED,
        [
            (*pipeline, outcome.job.document_id, *_facts(outcome.result))
            for outcome in ended
            if outcome.job.kind == "Ingest"
        ],
    )
    await connection.executemany(_EXPLAIN, [(*pipeline, o.job.document_id, _error(o.result)) for o in again])
    await connection.execute(_LATER, [o.job.id for o in again], [o.again_in for o in again])
    await _forget(connection, pipeline, [o.job.document_id for o in ended if o.job.kind == "Remove"])
    await connection.execute("DELETE FROM jobs WHERE id = ANY($1)", [outcome.job.id for outcome in ended])


async def _forget(connection: Connection, pipeline: PipelineId, document_ids: Sequence[str | None]) -> None:
    """Removed documents go, and what was uploaded for them is free to be deleted."""
    await connection.execute(_FREE_OBJECTS, *pipeline, document_ids)
    await connection.execute(_DELETE_DOCUMENTS, *pipeline, document_ids)


def _error(result: JobResult) -> str | None:
    return None if result.state == "Done" else result.error or "the worker gave no reason"


def _facts(result: JobResult) -> tuple[object, ...]:
    status = "Ready" if result.state == "Done" else "Failed"
    return status, result.title, result.pages, result.chunks, _error(result)


async def _release(connection: Connection, pipeline: PipelineId, epoch: int) -> None:
    """Give the lease back, with the jobs that nothing was said about; these count as not attempted."""
    await connection.execute(_DROP_SECOND_SYNC, *pipeline, epoch)
    await connection.execute(_GIVE_BACK, *pipeline, epoch)
    await connection.execute(_END_LEASE, *pipeline)
    await catalog.announce(connection, pipeline)


_TAKE_LEASE = """
UPDATE pipelines SET epoch = epoch + 1, lease_worker = $3, lease_expires_at = now() + $4::float8 * interval '1 second'
WHERE tenant = $1 AND name = $2 AND NOT purging AND uid IS NOT NULL
  AND (lease_expires_at IS NULL OR lease_expires_at <= now())
  AND EXISTS (SELECT FROM jobs WHERE tenant = $1 AND pipeline = $2 AND due_at <= now())
RETURNING epoch
"""
_EXTEND = """
UPDATE pipelines SET lease_expires_at = now() + $3::float8 * interval '1 second' WHERE tenant = $1 AND name = $2
"""
_END_LEASE = "UPDATE pipelines SET lease_worker = NULL, lease_expires_at = NULL WHERE tenant = $1 AND name = $2"
_POINTER = """
SELECT p.index_version, v.table_name, v.table_version, v.chunks
FROM pipelines p
LEFT JOIN index_versions v ON (v.tenant, v.pipeline, v.version) = (p.tenant, p.name, p.index_version)
WHERE p.tenant = $1 AND p.name = $2
"""
# Jobs that a dead worker had come last and one at a time: if one of them is what killed it, the others get by.
_HAND_OUT = """
WITH due AS (
    SELECT id, epoch IS NOT NULL AS dropped FROM jobs
    WHERE tenant = $1 AND pipeline = $2 AND due_at <= now()
    ORDER BY epoch IS NOT NULL, kind <> 'Sync', id LIMIT $4
), batch AS (
    SELECT id FROM due WHERE NOT dropped
    UNION ALL
    (SELECT id FROM due WHERE NOT EXISTS (SELECT FROM due WHERE NOT dropped) ORDER BY id LIMIT 1)
), taken AS (
    UPDATE jobs SET epoch = $3, attempt = attempt + 1 FROM batch WHERE jobs.id = batch.id
    RETURNING jobs.id, jobs.kind, jobs.document_id, jobs.attempt
)
SELECT t.*, d.name, d.media_type, d.raw_key, d.bucket, d.source
FROM taken t LEFT JOIN documents d ON (d.tenant, d.pipeline, d.document_id) = ($1, $2, t.document_id)
"""
_NEXT_CHANCE = """
SELECT extract(epoch FROM greatest(min(j.due_at), p.lease_expires_at) - now())
FROM pipelines p JOIN jobs j ON (j.tenant, j.pipeline) = (p.tenant, p.name)
WHERE p.tenant = $1 AND p.name = $2 GROUP BY p.lease_expires_at
"""
_FAIL_DEADLY = """
WITH deadly AS (
    DELETE FROM jobs WHERE tenant = $1 AND pipeline = $2 AND kind = 'Ingest' AND epoch IS NOT NULL AND attempt >= $3
    RETURNING document_id
)
UPDATE documents d SET status = 'Failed', error = $4, updated_at = now() FROM deadly
WHERE d.tenant = $1 AND d.pipeline = $2 AND d.document_id = deadly.document_id
"""
_FAIL_DEADLY_SYNC = """
WITH deadly AS (
    DELETE FROM jobs WHERE tenant = $1 AND pipeline = $2 AND kind = 'Sync' AND epoch IS NOT NULL AND attempt >= $3
    RETURNING id
)
UPDATE pipelines SET sync_error = $4 WHERE tenant = $1 AND name = $2 AND EXISTS (SELECT FROM deadly)
"""
_IS_SYNC = """
SELECT true FROM jobs WHERE tenant = $1 AND pipeline = $2 AND id = $3 AND epoch = $4 AND kind = 'Sync'
"""
_KNOWN = """
SELECT document_id, etag, status = 'Removing' FROM documents
WHERE tenant = $1 AND pipeline = $2 AND source <> 'Uploads'
"""
_UPSERT_SEEN = """
INSERT INTO documents (tenant, pipeline, document_id, source, bucket, name, etag, size)
SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
ON CONFLICT (tenant, pipeline, document_id) DO UPDATE
SET etag = excluded.etag, size = excluded.size, status = 'Pending', error = NULL, updated_at = now()
"""
_OPEN_JOBS = """
SELECT id, kind, document_id, attempt FROM jobs WHERE tenant = $1 AND pipeline = $2 AND id = ANY($3) AND epoch = $4
"""
_SAVE_VERSION = """
INSERT INTO index_versions (tenant, pipeline, version, table_name, table_version, chunks)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant, pipeline, version) DO UPDATE
SET table_name = excluded.table_name, table_version = excluded.table_version, chunks = excluded.chunks,
    updated_at = now()
"""
_MAKE_CURRENT = "UPDATE pipelines SET index_version = $3 WHERE tenant = $1 AND name = $2"
_SYNCED = """
UPDATE pipelines
SET sync_error = $3, last_sync_at = CASE WHEN $3::text IS NULL THEN now() ELSE last_sync_at END
WHERE tenant = $1 AND name = $2
"""
_DOCUMENT_INGESTED = """
UPDATE documents SET status = $4, title = $5, pages = $6, chunks = $7, error = $8, updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND document_id = $3
"""
_EXPLAIN = """
UPDATE documents SET error = $4, updated_at = now() WHERE tenant = $1 AND pipeline = $2 AND document_id = $3
"""
_LATER = """
UPDATE jobs SET epoch = NULL, due_at = now() + later.seconds * interval '1 second'
FROM unnest($1::bigint[], $2::float8[]) AS later (id, seconds)
WHERE jobs.id = later.id AND NOT (jobs.kind = 'Sync' AND EXISTS (
    SELECT FROM jobs waiting WHERE (waiting.tenant, waiting.pipeline) = (jobs.tenant, jobs.pipeline)
    AND waiting.kind = 'Sync' AND waiting.epoch IS NULL))
"""
_FREE_OBJECTS = """
INSERT INTO unclaimed_objects (key, tenant, due_at)
SELECT raw_key, tenant, now() FROM documents
WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3::text[]) AND raw_key IS NOT NULL
ON CONFLICT (key) DO NOTHING
"""
_DELETE_DOCUMENTS = "DELETE FROM documents WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3::text[])"
_DROP_SECOND_SYNC = """
DELETE FROM jobs WHERE tenant = $1 AND pipeline = $2 AND epoch = $3 AND kind = 'Sync' AND EXISTS (
    SELECT FROM jobs waiting WHERE waiting.tenant = $1 AND waiting.pipeline = $2
    AND waiting.kind = 'Sync' AND waiting.epoch IS NULL)
"""
_GIVE_BACK = """
UPDATE jobs SET epoch = NULL, attempt = attempt - 1 WHERE tenant = $1 AND pipeline = $2 AND epoch = $3
"""
