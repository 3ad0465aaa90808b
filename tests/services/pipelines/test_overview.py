"""Users see how their pipelines are, and may have what failed tried again."""

import os

import pytest

from loam_gateway.pipelines import catalog, documents, overview, retries
from loam_gateway.pipelines.model import PipelineId, StoredObject
from loam_shared.contracts.internal import Claim, Commit, JobResult
from loam_shared.errors import ConflictError, NotFoundError


async def upload(room, pipeline, name: str) -> str:
    """A document as the upload route hands it over; the bytes themselves do not matter here."""
    key = f"tenants/{pipeline.tenant}/raw/{os.urandom(8).hex()}"
    await documents.announce_object(room.pool, pipeline.tenant, key)
    arrived = StoredObject(name=name, media_type="text/plain", key=key, size=1, sha256=name)
    return (await documents.accept(room.pool, pipeline, [arrived]))[0].document_id


async def claim(room, pipeline):
    return await room.work.claim(pipeline, Claim(worker="a", wait_seconds=0))


async def fail(room, pipeline, reason: str) -> None:
    """A worker takes what there is and can read none of it."""
    work = await claim(room, pipeline)
    results = [JobResult(job_id=job.id, state="Failed", error=reason) for job in work.jobs]
    await room.work.commit(pipeline, Commit(epoch=work.epoch, results=tuple(results), release=True))


async def test_a_failed_document_is_tried_again_as_if_it_never_was(room, pipeline):
    document = await upload(room, pipeline, "scan.pdf")
    await fail(room, pipeline, "The PDF has no text layer.")
    retried = await retries.retry(room.pool, pipeline, document)
    assert (retried.status, retried.error) == ("Pending", None)
    [job] = (await claim(room, pipeline)).jobs
    assert (job.document_id, job.kind, job.attempt) == (document, "Ingest", 1)


async def test_only_what_failed_is_tried_again_and_the_refusal_says_why(room, pipeline):
    document = await upload(room, pipeline, "fine.md")
    with pytest.raises(ConflictError, match="has not failed; it is Pending"):
        await retries.retry(room.pool, pipeline, document)
    with pytest.raises(NotFoundError):
        await retries.retry(room.pool, pipeline, "doc_of_nobody")
    with pytest.raises(NotFoundError):
        await retries.retry(room.pool, PipelineId(pipeline.tenant, "nowhere"), document)


async def test_a_pipeline_shows_its_documents_by_status_and_why_some_failed(room, pipeline):
    await upload(room, pipeline, "scan.pdf")
    await fail(room, pipeline, "The PDF has no text layer.")
    await upload(room, pipeline, "fine.md")
    shown = await overview.details(room.pool, pipeline)
    assert shown.by_status == {"Failed": 1, "Pending": 1}
    assert [(one.name, one.error) for one in shown.failures] == [("scan.pdf", "The PDF has no text layer.")]
    assert (await claim(room, pipeline)) is not None
    assert (await overview.details(room.pool, pipeline)).by_status == {"Failed": 1, "Processing": 1}


async def test_a_pipeline_says_whether_a_sync_waits_or_is_under_way(room, pipeline):
    async def sync() -> str | None:
        [shown] = await overview.overviews(room.pool, pipeline.tenant)
        assert (shown.name, shown.sync) == ("handbook", (await overview.details(room.pool, pipeline)).sync)
        return shown.sync

    assert await sync() is None
    async with room.pool.acquire() as connection, connection.transaction():
        await catalog.queue_sync(connection, pipeline)
    assert await sync() == "Waiting"
    work = await claim(room, pipeline)
    assert await sync() == "Running"
    done = JobResult(job_id=work.jobs[0].id, state="Done")
    await room.work.commit(pipeline, Commit(epoch=work.epoch, results=(done,), release=True))
    assert await sync() is None
    assert (await overview.overviews(room.pool, pipeline.tenant))[0].last_sync_time is not None
