"""Work is done by one worker at a time, and by the newest: whoever dies, hangs or comes late changes nothing."""

import asyncio
import contextlib
import itertools
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loam_gateway.directory.changes import Act
from loam_gateway.pipelines import catalog, documents, housekeeping, manifests
from loam_gateway.pipelines.model import PipelineId, StoredObject
from loam_shared.contracts.admin import PipelinePut
from loam_shared.contracts.internal import Claim, Commit, IndexPointer, JobResult, Register, SourceDocument
from loam_shared.errors import ConflictError, InvalidRequestError, NotFoundError

from .conftest import SPEC

NOW = Claim(worker="a", wait_seconds=0)


async def upload(room, pipeline, name: str, content: str = "1") -> str:
    """A document as the upload route hands it over; the bytes themselves do not matter here."""
    key = f"tenants/{pipeline.tenant}/raw/{pipeline.name}/{os.urandom(8).hex()}"
    await documents.announce_object(room.pool, pipeline.tenant, key)
    arrived = StoredObject(name=name, media_type="text/plain", key=key, size=1, sha256=content)
    return (await documents.accept(room.pool, pipeline, [arrived]))[0].document_id


async def claim(room, pipeline, worker="a", **asked):
    return await room.work.claim(pipeline, Claim(worker=worker, wait_seconds=0, **asked))


async def expire_lease(room, pipeline) -> None:
    """What the passing of time does to a worker that fell silent."""
    await room.pool.execute("UPDATE pipelines SET lease_expires_at = now() WHERE tenant = $1", pipeline.tenant)


async def make_due(room, pipeline) -> None:
    """What the passing of time does to a retry."""
    await room.pool.execute("UPDATE jobs SET due_at = now() WHERE tenant = $1", pipeline.tenant)


def done(work, table_version=1, **more) -> Commit:
    results = tuple(JobResult(job_id=job.id, state="Done", chunks=1) for job in work.jobs)
    heads = tuple(head_of(target, table_version, len(results)) for target in work.targets)
    return Commit(epoch=work.epoch, heads=heads, results=results, **more)


def head_of(target, table_version: int, chunks: int = 1) -> IndexPointer:
    """A head as its worker would report it."""
    return IndexPointer(
        table=f"handbook-v{target.index_version}",
        table_version=table_version,
        chunks=chunks,
        index_version=target.index_version,
        embedding=target.recipe.embedding,
    )


def failed(work, *, retry: bool) -> Commit:
    results = tuple(JobResult(job_id=job.id, state="Failed", error="it is broken", retry=retry) for job in work.jobs)
    return Commit(epoch=work.epoch, results=results)


async def status(room, pipeline, document_id: str) -> str:
    return (await documents.show(room.pool, pipeline, document_id)).status


async def test_an_uploaded_document_is_worked_on_and_becomes_ready(room, pipeline):
    key = await upload(room, pipeline, "a.md")
    assert await status(room, pipeline, key) == "Pending"
    work = await claim(room, pipeline)
    assert [(job.kind, job.document_id, job.name) for job in work.jobs] == [("Ingest", key, "a.md")]
    assert [(target.serving, target.head) for target in work.targets] == [(True, None)]
    assert await status(room, pipeline, key) == "Processing"
    await room.work.commit(pipeline, done(work, table_version=7))
    shown = await documents.show(room.pool, pipeline, key)
    assert (shown.status, shown.chunks, shown.error) == ("Ready", 1, None)
    state = await catalog.state(room.pool, pipeline)
    assert (state.documents, state.pending, state.failed, state.chunks, state.index_version) == (1, 0, 0, 1, 1)
    await upload(room, pipeline, "b.md")
    assert (await claim(room, pipeline)).targets[0].head.table_version == 7


async def test_two_workers_never_have_the_same_pipeline_at_once(room, pipeline):
    for number in range(40):
        await upload(room, pipeline, f"{number}.md")
    works = await asyncio.gather(*(claim(room, pipeline, worker, max_jobs=8) for worker in "abcdefgh"))
    assert [len(work.jobs) for work in works if work] == [8]


async def test_workers_in_turn_get_every_job_exactly_once(room, pipeline):
    expected = {await upload(room, pipeline, f"{number}.md") for number in range(30)}
    seen: list[str] = []

    async def work_off(worker: str) -> None:
        while work := await room.work.claim(pipeline, Claim(worker=worker, wait_seconds=0.3, max_jobs=4)):
            seen.extend(job.document_id for job in work.jobs)
            await asyncio.sleep(0.002)
            await room.work.commit(pipeline, done(work))

    await asyncio.gather(*(work_off(worker) for worker in "abc"))
    assert sorted(seen) == sorted(expected)


async def test_a_worker_whose_lease_ran_out_and_was_taken_can_neither_renew_nor_commit(room, pipeline):
    key = await upload(room, pipeline, "a.md")
    late = await claim(room, pipeline, "a")
    await expire_lease(room, pipeline)
    other = await claim(room, pipeline, "b")
    assert other.epoch > late.epoch
    assert [job.document_id for job in other.jobs] == [key]
    assert other.jobs[0].attempt == 2
    for word in (room.work.renew(pipeline, late.epoch), room.work.commit(pipeline, done(late, 99))):
        with pytest.raises(ConflictError, match="lost"):
            await word
    await room.work.commit(pipeline, done(other, 5))
    assert (await catalog.serving(room.pool, pipeline)).index.table_version == 5


async def test_a_late_worker_that_nobody_overtook_may_still_commit(room, pipeline):
    key = await upload(room, pipeline, "a.md")
    work = await claim(room, pipeline)
    await expire_lease(room, pipeline)
    await room.work.commit(pipeline, done(work))
    assert await status(room, pipeline, key) == "Ready"


async def test_renewing_keeps_others_out(room, pipeline):
    await upload(room, pipeline, "a.md")
    work = await claim(room, pipeline)
    await expire_lease(room, pipeline)
    await room.work.renew(pipeline, work.epoch)
    assert await claim(room, pipeline, "b") is None


async def test_a_commit_is_all_or_nothing(room, pipeline):
    key = await upload(room, pipeline, "a.md")
    work = await claim(room, pipeline)
    foreign = head_of(work.targets[0], 1).model_copy(update={"table": "other-v1"})
    with pytest.raises(InvalidRequestError, match="other-v1 is not where version 1 of handbook is written to"):
        await room.work.commit(pipeline, done(work).model_copy(update={"heads": (foreign,)}))
    assert await status(room, pipeline, key) == "Processing"
    assert (await catalog.serving(room.pool, pipeline)).index is None


async def test_what_a_worker_says_nothing_about_comes_again_and_counts_as_not_tried(room, pipeline):
    for name in "ab":
        await upload(room, pipeline, name)
    work = await claim(room, pipeline)
    half = done(work)
    await room.work.commit(pipeline, half.model_copy(update={"results": half.results[:1]}))
    again = await claim(room, pipeline, "b")
    assert [(job.id, job.attempt) for job in again.jobs] == [(work.jobs[1].id, 1)]


async def test_a_commit_may_keep_the_lease_for_the_rest_of_the_batch(room, pipeline):
    for name in "ab":
        await upload(room, pipeline, name)
    work = await claim(room, pipeline)
    first, second = done(work).results
    await room.work.commit(pipeline, Commit(epoch=work.epoch, results=(first,), release=False))
    assert await claim(room, pipeline, "b") is None
    await room.work.commit(pipeline, Commit(epoch=work.epoch, results=(second,)))
    assert (await catalog.state(room.pool, pipeline)).pending == 0


async def test_what_may_still_succeed_is_tried_again_later_and_finally_fails_with_its_error(room, pipeline):
    key = await upload(room, pipeline, "a.md")
    for attempt in range(1, room.settings.max_attempts + 1):
        work = await claim(room, pipeline)
        assert work.jobs[0].attempt == attempt
        await room.work.commit(pipeline, failed(work, retry=True))
        assert await claim(room, pipeline) is None, "it waits before it is tried again"
        await make_due(room, pipeline)
    shown = await documents.show(room.pool, pipeline, key)
    assert (shown.status, shown.error) == ("Failed", "it is broken")
    assert await claim(room, pipeline) is None


async def test_what_cannot_succeed_fails_at_once_and_the_others_go_on(room, pipeline):
    broken, good = await upload(room, pipeline, "a.pdf"), await upload(room, pipeline, "b.md")
    work = await claim(room, pipeline)
    results = (failed(work, retry=False).results[0], done(work).results[1])
    await room.work.commit(pipeline, done(work).model_copy(update={"results": results}))
    assert await status(room, pipeline, broken) == "Failed"
    assert await status(room, pipeline, good) == "Ready"
    assert (await catalog.state(room.pool, pipeline)).failed == 1


async def test_a_document_that_kills_every_worker_fails_and_takes_no_other_with_it(room, pipeline):
    deadly = await upload(room, pipeline, "deadly.pdf")
    others = [await upload(room, pipeline, f"{number}.md") for number in range(5)]
    deaths = 0
    while work := await claim(room, pipeline):
        if deadly in {job.document_id for job in work.jobs}:
            deaths += 1
            await expire_lease(room, pipeline)
        else:
            await room.work.commit(pipeline, done(work))
    assert deaths == room.settings.max_deaths
    assert "died" in (await documents.show(room.pool, pipeline, deadly)).error
    assert {await status(room, pipeline, key) for key in others} == {"Ready"}


async def test_a_document_deleted_while_it_is_ingested_ends_in_gone(room, pipeline):
    key = await upload(room, pipeline, "a.md")
    work = await claim(room, pipeline)
    await documents.remove(room.pool, pipeline, key)
    await room.work.commit(pipeline, done(work))
    assert await status(room, pipeline, key) == "Removing"
    removal = await claim(room, pipeline)
    assert [job.kind for job in removal.jobs] == ["Remove"]
    await room.work.commit(pipeline, done(removal, 2))
    with pytest.raises(NotFoundError):
        await documents.show(room.pool, pipeline, key)


async def test_a_document_replaced_while_it_is_ingested_is_ingested_again(room, pipeline):
    key = await upload(room, pipeline, "a.md", "old")
    work = await claim(room, pipeline)
    assert await upload(room, pipeline, "a.md", "new") == key
    await room.work.commit(pipeline, done(work))
    assert await status(room, pipeline, key) == "Pending"
    again = await claim(room, pipeline)
    assert again.jobs[0].raw_key != work.jobs[0].raw_key
    await room.work.commit(pipeline, done(again, 2))
    assert await status(room, pipeline, key) == "Ready"


async def test_the_same_bytes_again_are_no_work(room, pipeline):
    key = await upload(room, pipeline, "a.md", "same")
    await room.work.commit(pipeline, done(await claim(room, pipeline)))
    assert await upload(room, pipeline, "a.md", "same") == key
    assert await status(room, pipeline, key) == "Ready"
    assert await claim(room, pipeline) is None


async def test_a_removal_is_tried_until_it_succeeds(room, pipeline):
    key = await upload(room, pipeline, "a.md")
    await documents.remove(room.pool, pipeline, key)
    for _ in range(room.settings.max_attempts + 3):
        await room.work.commit(pipeline, failed(await claim(room, pipeline), retry=False))
        await make_due(room, pipeline)
    await room.work.commit(pipeline, done(await claim(room, pipeline)))
    with pytest.raises(NotFoundError):
        await documents.show(room.pool, pipeline, key)


def listed(**etags: str) -> tuple[SourceDocument, ...]:
    return tuple(SourceDocument(source="S3", bucket="docs", key=key, etag=etag, size=1) for key, etag in etags.items())


async def sync(room, pipeline, **etags: str):
    """One sync, and all the work that it makes."""
    async with room.pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, pipeline)
        await catalog.queue_sync(connection, pipeline)
    work = await claim(room, pipeline)
    assert [job.kind for job in work.jobs] == ["Sync"]
    listing = Register(epoch=work.epoch, job_id=work.jobs[0].id, documents=listed(**etags))
    registered = await room.work.register(pipeline, listing)
    await room.work.commit(pipeline, done(work).model_copy(update={"heads": ()}))
    while work := await claim(room, pipeline):
        await room.work.commit(pipeline, done(work))
    return registered.added, registered.changed, registered.removed, registered.unchanged


async def names(room, pipeline) -> list[str]:
    return [one.name for one in (await documents.listing(room.pool, pipeline, limit=100, cursor=None)).documents]


async def test_a_sync_brings_in_what_is_new_or_changed_and_takes_out_what_is_gone(room, pipeline):
    uploaded = await upload(room, pipeline, "uploaded.md")
    await room.work.commit(pipeline, done(await claim(room, pipeline)))
    assert await sync(room, pipeline, a="1", b="1", c="1") == (3, 0, 0, 0)
    assert await sync(room, pipeline, a="1", b="2", d="1") == (1, 1, 1, 1)
    assert await names(room, pipeline) == ["a", "b", "d", "uploaded.md"]
    assert await sync(room, pipeline, a="1", b="2", d="1") == (0, 0, 0, 3)
    assert await sync(room, pipeline) == (0, 0, 3, 0)
    assert await status(room, pipeline, uploaded) == "Ready"
    assert (await catalog.state(room.pool, pipeline)).last_sync_time is not None


async def test_a_first_sync_of_many_documents_takes_seconds(room, pipeline):
    started = time.monotonic()
    contents = {f"{number:05}.md": "1" for number in range(15_000)}
    async with room.pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, pipeline)
        await catalog.queue_sync(connection, pipeline)
    work = await claim(room, pipeline)
    listing = Register(epoch=work.epoch, job_id=work.jobs[0].id, documents=listed(**contents))
    assert (await room.work.register(pipeline, listing)).added == len(contents)
    await room.work.commit(pipeline, done(work))
    assert len((await claim(room, pipeline, max_jobs=256)).jobs) == 256
    # With outdated statistics it was 18 s, and four times that for twice as many.
    assert time.monotonic() - started < 8


async def test_a_sync_asked_for_while_one_goes_on_is_not_lost(room, pipeline):
    async def ask() -> None:
        async with room.pool.acquire() as connection, connection.transaction():
            await catalog.locked(connection, pipeline)
            await catalog.queue_sync(connection, pipeline)

    await ask()
    await ask()
    work = await claim(room, pipeline)
    assert len(work.jobs) == 1
    await ask()
    # Half-way given back, it and the one that was asked for meanwhile are one again.
    await room.work.commit(pipeline, Commit(epoch=work.epoch, results=()))
    again = await claim(room, pipeline)
    assert [job.kind for job in again.jobs] == ["Sync"]
    await room.work.commit(pipeline, failed(again, retry=True))
    assert (await catalog.state(room.pool, pipeline)).sync_error == "it is broken"


async def test_only_the_one_who_has_the_sync_may_register(room, pipeline):
    await upload(room, pipeline, "a.md")
    work = await claim(room, pipeline)
    with pytest.raises(ConflictError, match="not under way"):
        await room.work.register(pipeline, Register(epoch=work.epoch, job_id=work.jobs[0].id, documents=()))


async def test_a_document_of_a_source_is_deleted_at_its_source(room, pipeline):
    await sync(room, pipeline, a="1")
    page = await documents.listing(room.pool, pipeline, limit=1, cursor=None)
    with pytest.raises(ConflictError, match="delete it there"):
        await documents.remove(room.pool, pipeline, page.documents[0].document_id)


async def test_a_waiting_worker_is_woken_by_new_work(room, pipeline):
    waiting = asyncio.create_task(room.work.claim(pipeline, Claim(worker="a", wait_seconds=20)))
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await upload(room, pipeline, "a.md")
    assert (await waiting).jobs
    assert time.monotonic() - started < 1


async def test_a_waiting_worker_is_woken_when_a_lease_runs_out(room, pipeline, monkeypatch):
    await upload(room, pipeline, "a.md")
    await claim(room, pipeline)
    await room.pool.execute(
        "UPDATE pipelines SET lease_expires_at = now() + interval '0.2 s' WHERE tenant = $1", pipeline.tenant
    )
    work = await room.work.claim(pipeline, Claim(worker="b", wait_seconds=5))
    assert work.jobs[0].attempt == 2


async def test_schedules_start_one_sync_each_however_many_gateways_look(room, pipeline):
    spec = SPEC | {"sync": {"schedule": "*/5 * * * *"}}
    await manifests.put(
        room.pool, pipeline, PipelinePut(uid="uid", spec=spec, endpoint="http://x"), Act("operator", "r")
    )
    await room.pool.execute("DELETE FROM jobs WHERE tenant = $1", pipeline.tenant)
    await room.pool.execute("UPDATE pipelines SET next_sync_at = now() WHERE tenant = $1", pipeline.tenant)
    started = await asyncio.gather(*(housekeeping.start_due_syncs(room.pool) for _ in range(6)))
    assert sum(started) <= 1
    jobs = await room.pool.fetchval("SELECT count(*) FROM jobs WHERE tenant = $1", pipeline.tenant)
    waits = await room.pool.fetchval("SELECT next_sync_at > now() FROM pipelines WHERE tenant = $1", pipeline.tenant)
    assert (jobs, waits) == (1, True)


STEPS = st.one_of(
    st.tuples(st.just("upload"), st.integers(0, 3), st.sampled_from("xyz")),
    st.tuples(st.just("remove"), st.integers(0, 3)),
    st.tuples(st.just("claim"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["commit", "fail", "abandon", "renew"]), st.integers(0, 1)),
    st.tuples(st.just("expire")),
)
_numbers = itertools.count(1)


class Model:
    """Two workers whose index is a dictionary: what each version holds, by the number that the pointer carries."""

    def __init__(self, room, pipeline) -> None:
        self.room, self.pipeline = room, pipeline
        self.tables: dict[int, dict[str, str]] = {0: {}}
        self.works = [None, None]
        self.wanted: dict[str, str] = {}
        self.bytes: dict[str, str] = {}

    async def upload(self, number: int, content: str) -> None:
        key = await upload(self.room, self.pipeline, f"{number}", content)
        self.wanted[key] = content
        rows = await self.room.pool.fetch("SELECT raw_key, etag FROM documents WHERE document_id = $1", key)
        self.bytes |= {row["raw_key"]: row["etag"] for row in rows}

    async def remove(self, number: int) -> None:
        page = await documents.listing(self.room.pool, self.pipeline, limit=100, cursor=None)
        for one in page.documents:
            if one.name == f"{number}":
                await documents.remove(self.room.pool, self.pipeline, one.document_id)
                self.wanted.pop(one.document_id, None)

    async def claim(self, worker: int) -> None:
        self.works[worker] = await claim(self.room, self.pipeline, str(worker), max_jobs=2) or self.works[worker]

    async def commit(self, worker: int) -> None:
        if (work := self.works[worker]) is None:
            return
        head = work.targets[0].head
        table = dict(self.tables[head.table_version if head else 0])
        for job in work.jobs:
            table.pop(job.document_id, None)
            if job.kind == "Ingest":
                table[job.document_id] = self.bytes[job.raw_key]
        version = next(_numbers)
        self.tables[version] = table
        await self.say(worker, done(work, version))

    async def fail(self, worker: int) -> None:
        if (work := self.works[worker]) is not None:
            await self.say(worker, failed(work, retry=True))

    async def abandon(self, worker: int) -> None:
        if (work := self.works[worker]) is not None:
            await self.say(worker, Commit(epoch=work.epoch, results=()))

    async def renew(self, worker: int) -> None:
        if (work := self.works[worker]) is not None:
            try:
                await self.room.work.renew(self.pipeline, work.epoch)
            except ConflictError:
                self.works[worker] = None

    async def expire(self) -> None:
        await expire_lease(self.room, self.pipeline)

    async def say(self, worker: int, word: Commit) -> None:
        self.works[worker] = None
        with contextlib.suppress(ConflictError):
            await self.room.work.commit(self.pipeline, word)

    async def finish(self) -> dict[str, str]:
        """A healthy worker does what is left; then this is what the index holds."""
        await self.expire()
        while True:
            await make_due(self.room, self.pipeline)
            await self.claim(0)
            if self.works[0] is None:
                break
            await self.commit(0)
        index = (await catalog.serving(self.room.pool, self.pipeline)).index
        return self.tables[index.table_version if index else 0]


async def run(room, steps) -> None:
    pipeline = PipelineId(f"t{os.urandom(6).hex()}", "handbook")
    await room.pool.execute("INSERT INTO tenant_storage (tenant, uid) VALUES ($1, 'x')", pipeline.tenant)
    await manifests.put(
        room.pool,
        pipeline,
        PipelinePut(uid="u", spec=SPEC, endpoint="x"),
        Act("operator", "r"),
    )
    await room.pool.execute("DELETE FROM jobs WHERE tenant = $1", pipeline.tenant)
    model = Model(room, pipeline)
    for name, *arguments in steps:
        await getattr(model, name)(*arguments)
    index = await model.finish()
    shown = (await documents.listing(room.pool, pipeline, limit=100, cursor=None)).documents
    given_up = {one.document_id for one in shown if one.status == "Failed"}
    assert {one.document_id for one in shown} == set(model.wanted)
    assert {key: index[key] for key in index if key not in given_up} == {
        key: content for key, content in model.wanted.items() if key not in given_up
    }


async def test_whatever_happens_in_whatever_order_the_index_ends_as_the_user_wanted(room):
    loop = asyncio.get_running_loop()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(steps=st.lists(STEPS, max_size=25))
    def holds(steps):
        asyncio.run_coroutine_threadsafe(run(room, steps), loop).result()

    await asyncio.to_thread(holds)
