"""Work for a pipeline's ingestion workers: claimed under a lease, committed only by the newest epoch.

The lease is the pair (epoch, lease_expires_at) on the pipeline's row. Claiming raises the epoch; every later word of
the worker carries it and is refused when it is no longer the pipeline's. A job is under way while its own epoch is the
pipeline's, so when a worker dies nothing has to be put back: the next claim, under the next epoch, just finds it again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import asyncpg
import orjson

from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.pipelines import catalog, publication, reports, versions
from loam_gateway.pipelines.differ import Differences, KnownDocument, compare
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.settings import PipelineSettings
from loam_gateway.pipelines.wakeups import Wakeups
from loam_shared.contracts.internal import (
    Claim,
    Commit,
    Inventory,
    Job,
    Register,
    Registered,
    SourceDocument,
    Work,
)
from loam_shared.errors import ConflictError

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
        async with self._leased(pipeline, epoch) as (connection, _):
            await connection.execute(_EXTEND, *pipeline, self._settings.lease_seconds)

    async def register(self, pipeline: PipelineId, listing: Register) -> Registered:
        """Queue what differs between the sources and what is known of them. Raises ConflictError."""
        async with self._leased(pipeline, listing.epoch) as (connection, row):
            if not await connection.fetchval(_IS_SYNC, *pipeline, reports.number(listing.job_id), listing.epoch):
                raise ConflictError(f"the sync {listing.job_id} is not under way under epoch {listing.epoch}")
            known = [KnownDocument(*one) for one in await connection.fetch(_KNOWN, *pipeline)]
            found = compare(pipeline, listing.documents, known)
            # A first sync shows what it has found as it goes: there is nothing yet that it could be half-way from.
            await _queue_differences(connection, pipeline, found, held=row["last_sync_at"] is not None)
            await connection.execute(_SYNC_BEGUN, *pipeline)
        return Registered(
            added=len(found.added), changed=len(found.changed), removed=len(found.removed), unchanged=found.unchanged
        )

    async def inventory(self, pipeline: PipelineId, epoch: int) -> Inventory:
        """What the version being built has to hold. Raises ConflictError."""
        async with self._leased(pipeline, epoch) as (connection, _):
            rows = await connection.fetch(_INVENTORY, *pipeline)
        return Inventory(documents=tuple(row["document_id"] for row in rows))

    async def commit(self, pipeline: PipelineId, done: Commit) -> None:
        """Move the versions' heads and the jobs' and documents' states, all or nothing. Raises ConflictError."""
        async with self._leased(pipeline, done.epoch) as (connection, _):
            await reports.take(connection, pipeline, done, self._settings)
            await publication.settle(connection, pipeline, self._settings.superseded_versions_seconds)
            if done.release:
                await _release(connection, pipeline, done.epoch)
            else:
                await connection.execute(_EXTEND, *pipeline, self._settings.lease_seconds)

    async def _take(self, pipeline: PipelineId, asked: Claim) -> Work | None:
        async with self._pool.acquire() as connection, connection.transaction():
            lease = await connection.fetchrow(_TAKE_LEASE, *pipeline, asked.worker, self._settings.lease_seconds)
            if lease is None:
                return None
            if await reports.give_up(connection, pipeline, self._settings.max_deaths):
                await publication.settle(connection, pipeline, self._settings.superseded_versions_seconds)
            rows = await connection.fetch(_HAND_OUT, *pipeline, lease["epoch"], asked.max_jobs, asked.max_bytes)
            if not rows:
                await connection.execute(_END_LEASE, *pipeline)
                return None
            targets = await versions.targets(connection, pipeline)
        return Work(
            epoch=lease["epoch"],
            lease_seconds=self._settings.lease_seconds,
            targets=targets,
            sources=tuple(orjson.loads(lease["sources"] or "[]")),
            jobs=tuple(_job(row) for row in sorted(rows, key=lambda row: int(row["id"]))),
        )

    async def _pause(self, pipeline: PipelineId) -> float:
        """Seconds until the next job is due and the present lease, if any, has run out."""
        seconds = await self._pool.fetchval(_NEXT_CHANCE, *pipeline)
        return _LOOK_AGAIN_SECONDS if seconds is None else min(max(float(seconds), 0.01), _LOOK_AGAIN_SECONDS)

    @asynccontextmanager
    async def _leased(self, pipeline: PipelineId, epoch: int) -> AsyncIterator[tuple[Connection, asyncpg.Record]]:
        """A transaction that holds the pipeline's row, which is given too, and exists only under its present epoch."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await catalog.locked(connection, pipeline)
            if row["epoch"] != epoch:
                raise ConflictError(f"the lease of epoch {epoch} is lost: the pipeline is at epoch {row['epoch']}")
            yield connection, row


async def _wait(woken: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(woken.wait(), seconds)


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


async def _queue_differences(connection: Connection, pipeline: PipelineId, found: Differences, *, held: bool) -> None:
    wanted = found.added | found.changed
    if wanted:
        await connection.execute(_UPSERT_SEEN, *pipeline, *_columns(wanted.items()))
        if len(wanted) >= _MANY:
            # With statistics from before, PostgreSQL looks documents up by the wrong index, which takes quadratic time.
            await connection.execute("ANALYZE documents")
        await catalog.queue_ingests(connection, pipeline, list(wanted), held=held)
    if found.removed:
        await catalog.queue_removals(connection, pipeline, found.removed, held=held)
    if again := [row["document_id"] for row in await connection.fetch(_FAILED_FOR_NOW, *pipeline)]:
        await catalog.queue_ingests(connection, pipeline, again)


def _columns(documents: Iterable[tuple[str, SourceDocument]]) -> tuple[list[object], ...]:
    rows = [(key, one.source, one.bucket, one.key, one.etag, one.size) for key, one in documents]
    return tuple(list(column) for column in zip(*rows, strict=True))


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
RETURNING epoch, spec ->> 'sources' AS sources
"""
_EXTEND = """
UPDATE pipelines SET lease_expires_at = now() + $3::float8 * interval '1 second' WHERE tenant = $1 AND name = $2
"""
_END_LEASE = "UPDATE pipelines SET lease_worker = NULL, lease_expires_at = NULL WHERE tenant = $1 AND name = $2"
# Jobs that a dead worker had come last and one at a time: if one of them is what killed it, the others get by. So does
# a Check, which judges what all others have left. A sync waits for the end of the one that is under way.
_HAND_OUT = """
WITH due AS (
    SELECT j.id, j.epoch IS NOT NULL OR j.kind = 'Check' AS alone, j.kind = 'Check' AS last,
           row_number() OVER places AS place, sum(coalesce(d.size, 0)) OVER places AS bytes
    FROM jobs j LEFT JOIN documents d ON (d.tenant, d.pipeline, d.document_id) = (j.tenant, j.pipeline, j.document_id)
    WHERE j.tenant = $1 AND j.pipeline = $2 AND j.due_at <= now()
      AND NOT (j.kind = 'Sync' AND EXISTS (SELECT FROM jobs WHERE tenant = $1 AND pipeline = $2 AND held))
    WINDOW places AS (ORDER BY j.epoch IS NOT NULL OR j.kind = 'Check', j.kind <> 'Sync', j.kind = 'Build', j.id)
), batch AS (
    SELECT id FROM due WHERE NOT alone AND place <= $4 AND (bytes <= $5 OR place = 1)
    UNION ALL
    (SELECT id FROM due WHERE NOT EXISTS (SELECT FROM due WHERE NOT alone) ORDER BY last, id LIMIT 1)
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
_IS_SYNC = """
SELECT true FROM jobs WHERE tenant = $1 AND pipeline = $2 AND id = $3 AND epoch = $4 AND kind = 'Sync'
"""
_SYNC_BEGUN = "UPDATE pipelines SET sync_started_at = now() WHERE tenant = $1 AND name = $2"
_KNOWN = """
SELECT document_id, etag, status = 'Removing' FROM documents
WHERE tenant = $1 AND pipeline = $2 AND source <> 'Uploads'
"""
_UPSERT_SEEN = """
INSERT INTO documents AS d (tenant, pipeline, document_id, source, bucket, name, etag, size)
SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
ON CONFLICT (tenant, pipeline, document_id) DO UPDATE
SET etag = excluded.etag, size = excluded.size, version = d.version + 1
"""
_FAILED_FOR_NOW = """
SELECT document_id FROM documents WHERE tenant = $1 AND pipeline = $2 AND status = 'Failed' AND retryable
"""
_INVENTORY = """
SELECT document_id FROM documents WHERE tenant = $1 AND pipeline = $2 AND indexed_change IS NOT NULL
"""
_DROP_SECOND_SYNC = """
DELETE FROM jobs WHERE tenant = $1 AND pipeline = $2 AND epoch = $3 AND kind = 'Sync' AND EXISTS (
    SELECT FROM jobs waiting WHERE waiting.tenant = $1 AND waiting.pipeline = $2
    AND waiting.kind = 'Sync' AND waiting.epoch IS NULL)
"""
_GIVE_BACK = """
UPDATE jobs SET epoch = NULL, attempt = attempt - 1 WHERE tenant = $1 AND pipeline = $2 AND epoch = $3
"""
