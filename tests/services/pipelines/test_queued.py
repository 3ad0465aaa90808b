"""What a pipeline's state says of its work, by which the operator starts and stops its ingestion worker."""

import os

from loam_gateway.pipelines import catalog, documents
from loam_gateway.pipelines.model import StoredObject
from loam_shared.contracts.internal import Claim, Commit, JobResult


async def _queued(room, pipeline) -> int:
    state = await catalog.state(room.pool, pipeline)
    assert (await catalog.states(room.pool))[str(pipeline)] == state
    return state.queued


async def _claim(room, pipeline):
    return await room.work.claim(pipeline, Claim(worker="a", wait_seconds=0))


async def test_jobs_count_as_queued_from_the_upload_until_they_are_done_and_not_while_they_wait_to_be_tried_again(
    room, pipeline
):
    while (work := await _claim(room, pipeline)) is not None:
        results = tuple(JobResult(job_id=job.id, state="Done") for job in work.jobs)
        await room.work.commit(pipeline, Commit(epoch=work.epoch, results=results))
    assert await _queued(room, pipeline) == 0
    key = f"tenants/{pipeline.tenant}/raw/{pipeline.name}/{os.urandom(8).hex()}"
    await documents.announce_object(room.pool, pipeline.tenant, key)
    arrived = StoredObject(name="a.txt", media_type="text/plain", key=key, size=1, sha256="1")
    await documents.accept(room.pool, pipeline, [arrived])
    assert await _queued(room, pipeline) == 1
    work = await _claim(room, pipeline)
    assert await _queued(room, pipeline) == 1
    [job] = work.jobs
    later = JobResult(job_id=job.id, state="Failed", error="it is broken", retry=True)
    await room.work.commit(pipeline, Commit(epoch=work.epoch, results=(later,)))
    assert await _queued(room, pipeline) == 0
    await room.pool.execute("UPDATE jobs SET due_at = now() WHERE tenant = $1", pipeline.tenant)
    assert await _queued(room, pipeline) == 1
