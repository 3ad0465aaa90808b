"""A version of the index is built beside the one that serves, takes its place whole, and can be gone back from."""

import asyncio
import contextlib
import itertools
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loam_gateway.directory.changes import Act
from loam_gateway.pipelines import catalog, documents, housekeeping, manifests, versions
from loam_gateway.pipelines.model import PipelineId, StoredObject
from loam_shared.contracts.admin import PipelinePut
from loam_shared.contracts.internal import Claim, Commit, IndexPointer, JobResult, Register, SourceDocument
from loam_shared.errors import ConflictError, NotFoundError

from .conftest import EMBEDDING, SPEC

ACT = Act("operator", "r")
_numbers = itertools.count(1)


def spec(dimensions: int = 256, **more):
    return SPEC | {"embedding": EMBEDDING | {"dimensions": dimensions}} | more


class World:
    """A pipeline whose index is dictionaries, with a bucket, uploads, and two workers that do what they are given.

    `tables` holds the content of every table at every version of it: document id to content.
    """

    def __init__(self, room, pipeline) -> None:
        self.room, self.pipeline = room, pipeline
        self.tables: dict[tuple[str, int], dict[str, str]] = {}
        self.works = [None, None]
        self.bucket: dict[str, str] = {}
        self.uploads: dict[str, str] = {}

    async def put(self, **changes) -> None:
        desired = PipelinePut(uid="uid", spec=spec(**changes), endpoint="http://127.0.0.1:1")
        await manifests.put(self.room.pool, self.pipeline, desired, ACT)

    async def upload(self, name: str, content: str) -> str:
        key = f"tenants/{self.pipeline.tenant}/raw/{self.pipeline.name}/{os.urandom(8).hex()}"
        await documents.announce_object(self.room.pool, self.pipeline.tenant, key)
        arrived = StoredObject(name=name, media_type="text/plain", key=key, size=1, sha256=content)
        [accepted] = await documents.accept(self.room.pool, self.pipeline, [arrived])
        self.uploads[accepted.document_id] = content
        return accepted.document_id

    async def remove(self, document_id: str) -> None:
        if self.uploads.pop(document_id, None) is not None:
            await documents.remove(self.room.pool, self.pipeline, document_id)

    async def sync(self) -> None:
        async with self.room.pool.acquire() as connection, connection.transaction():
            await catalog.locked(connection, self.pipeline)
            await catalog.queue_sync(connection, self.pipeline)

    async def claim(self, worker: int = 0, most: int = 4) -> bool:
        asked = Claim(worker=str(worker), wait_seconds=0, max_jobs=most)
        work = await self.room.work.claim(self.pipeline, asked)
        self.works[worker] = work or self.works[worker]
        return work is not None

    async def commit(self, worker: int = 0) -> None:
        """Do what was claimed, as the worker does it."""
        work, self.works[worker] = self.works[worker], None
        with contextlib.suppress(ConflictError):
            if work is not None:
                await self.room.work.commit(self.pipeline, await self._done(work))

    async def abandon(self, worker: int = 0) -> None:
        work, self.works[worker] = self.works[worker], None
        with contextlib.suppress(ConflictError):
            if work is not None:
                await self.room.work.commit(self.pipeline, Commit(epoch=work.epoch, results=()))

    async def expire(self) -> None:
        await self.room.pool.execute(
            "UPDATE pipelines SET lease_expires_at = now() WHERE tenant = $1", self.pipeline.tenant
        )

    async def step(self, most: int = 4) -> bool:
        """One batch of a healthy worker; False when there is nothing to do."""
        await self.room.pool.execute("UPDATE jobs SET due_at = now() WHERE tenant = $1", self.pipeline.tenant)
        if not await self.claim(0, most):
            return False
        await self.commit(0)
        return True

    async def finish(self) -> None:
        await self.expire()
        while await self.step(16):
            pass

    async def answers(self) -> dict[str, str]:
        """What readers find: documents' contents in the version that they are told of."""
        index = (await catalog.serving(self.room.pool, self.pipeline)).index
        return self.tables[index.table, index.table_version] if index else {}

    async def wanted(self) -> dict[str, str]:
        return {f"{name}": content for name, content in self.bucket.items()} | self.uploads

    async def shown(self) -> list[versions.IndexVersion]:
        return await versions.versions(self.room.pool, self.pipeline)

    async def serves(self) -> int:
        return next(one.version for one in await self.shown() if one.current)

    async def _done(self, work) -> Commit:
        contents = {job.document_id: await self._content(job) for job in work.jobs if job.kind in {"Ingest", "Build"}}
        results = [await self._result(job, work, contents) for job in work.jobs]
        heads = [await self._write(target, work, contents) for target in work.targets]
        return Commit(epoch=work.epoch, heads=tuple(heads), results=tuple(results))

    async def _content(self, job) -> str | None:
        if job.source_key is not None:
            return self.bucket.get(job.source_key)
        return await self.room.pool.fetchval("SELECT etag FROM documents WHERE raw_key = $1", job.raw_key)

    async def _result(self, job, work, contents) -> JobResult:
        if job.kind == "Sync":
            seen = tuple(
                SourceDocument(source="S3", bucket="docs", key=key, etag=content, size=1)
                for key, content in self.bucket.items()
            )
            await self.room.work.register(self.pipeline, Register(epoch=work.epoch, job_id=job.id, documents=seen))
        if job.kind in {"Ingest", "Build"} and contents[job.document_id] is None:
            return JobResult(job_id=job.id, state="Failed", error="it is gone", chunks=0)
        return JobResult(job_id=job.id, state="Done", chunks=1)

    async def _write(self, target, work, contents) -> IndexPointer:
        name = f"handbook-v{target.index_version}"
        table = dict(self.tables[target.head.table, target.head.table_version]) if target.head else {}
        for job in work.jobs:
            if job.kind == "Check" and not target.serving:
                keep = (await self.room.work.inventory(self.pipeline, work.epoch)).documents
                assert set(keep) <= set(table), "a version is checked only when it holds everything"
                table = {key: content for key, content in table.items() if key in keep}
            if job.kind == "Build" and target.serving:
                continue
            if job.kind in {"Ingest", "Build", "Remove"}:
                table.pop(job.document_id, None)
            if contents.get(job.document_id) is not None:
                table[job.document_id] = contents[job.document_id]
        version = next(_numbers)
        self.tables[name, version] = table
        recipe = target.recipe
        return IndexPointer(
            table=name,
            table_version=version,
            chunks=len(table),
            index_version=target.index_version,
            embedding=recipe.embedding,
        )


@pytest.fixture
async def world(room, pipeline):
    made = World(room, pipeline)
    await made.put()
    return made


async def test_another_model_is_built_beside_the_index_that_serves_and_takes_its_place_at_once(world):
    for name in "abcdefgh":
        await world.upload(name, f"{name}1")
    await world.finish()
    await world.put(dimensions=512)
    before, seen = await world.answers(), set()
    while await world.step(3):
        assert await world.answers() == before
        seen.add(await world.serves())
    assert seen == {1, 2}
    serving, former = await world.shown()
    assert (serving.version, serving.state, serving.recipe.embedding.dimensions) == (2, "Serving", 512)
    assert (former.version, former.state, former.recipe.embedding.dimensions) == (1, "Ready", 256)
    index = (await catalog.serving(world.room.pool, world.pipeline)).index
    assert (index.table, index.embedding.dimensions) == ("handbook-v2", 512)


async def test_its_progress_is_told_while_it_is_built(world):
    for name in "abcdef":
        await world.upload(name, "1")
    await world.finish()
    await world.put(dimensions=512)
    await world.expire()
    await world.step(2)
    building = (await catalog.state(world.room.pool, world.pipeline)).building
    assert (building.index_version, building.documents) == (2, 6)
    await world.step(4)
    building = (await catalog.state(world.room.pool, world.pipeline)).building
    assert 4 <= building.done <= 6
    await world.finish()
    assert (await catalog.state(world.room.pool, world.pipeline)).building is None


async def test_what_changes_while_a_version_is_built_is_in_both(world):
    await world.upload("a", "1")
    going = await world.upload("b", "1")
    await world.finish()
    await world.put(dimensions=512)
    await world.upload("a", "2")
    await world.remove(going)
    await world.upload("c", "1")
    while await world.serves() == 1:
        assert await world.step(1)
        if not await world.room.pool.fetchval(
            "SELECT count(*) FROM jobs WHERE tenant = $1 AND kind IN ('Ingest', 'Remove')", world.pipeline.tenant
        ):
            assert await world.answers() == await world.wanted()
    assert await world.answers() == await world.wanted()


async def test_a_worker_at_the_former_recipe_loses_its_lease(world):
    await world.upload("a", "1")
    await world.finish()
    await world.upload("b", "1")
    assert await world.claim()
    await world.put(dimensions=512)
    with pytest.raises(ConflictError, match="lost"):
        await world.room.work.renew(world.pipeline, world.works[0].epoch)


async def test_an_index_that_holds_nothing_yet_is_simply_made_by_the_other_recipe(world):
    await world.put(dimensions=512)
    assert [(one.version, one.recipe.embedding.dimensions) for one in await world.shown()] == [(1, 512)]


async def test_a_manifest_that_changes_back_leaves_off_building(world):
    await world.upload("a", "1")
    await world.finish()
    await world.put(dimensions=512)
    await world.put(dimensions=256)
    assert [(one.version, one.state) for one in await world.shown()] == [(1, "Serving")]
    assert not await world.step()


async def test_a_version_that_was_found_worse_stays_out_of_service_and_says_why(world):
    await world.upload("a", "1")
    await world.finish()
    await world.put(dimensions=512)
    await world.expire()
    while await world.claim(0, 1):
        [job] = world.works[0].jobs
        if job.kind == "Check":
            bad = JobResult(job_id=job.id, state="Failed", error="it finds 1 of 50")
            await world.room.work.commit(world.pipeline, Commit(epoch=world.works[0].epoch, results=(bad,)))
        else:
            await world.commit(0)
    rejected, serving = await world.shown()
    assert (rejected.state, rejected.reason, serving.state) == ("Rejected", "it finds 1 of 50", "Serving")
    assert (await catalog.state(world.room.pool, world.pipeline)).rejected == "it finds 1 of 50"
    await world.put(dimensions=512)
    assert not await world.step(), "what was judged is not built again by itself"
    # Whoever asks for it by its number gets it, as soon as it is complete.
    await versions.rollback(world.room.pool, world.pipeline, 2)
    assert await world.claim()
    assert [target.chosen for target in world.works[0].targets] == [False, True]
    await world.commit()
    await world.finish()
    assert await world.serves() == 2


async def test_a_rejected_version_that_is_asked_for_later_holds_what_has_changed_meanwhile(world):
    await world.upload("a", "1")
    await world.upload("b", "1")
    await world.finish()
    await world.put(dimensions=512)
    await world.expire()
    while await world.claim(0, 1) and world.works[0].jobs[0].kind != "Check":
        await world.commit()
    bad = JobResult(job_id=world.works[0].jobs[0].id, state="Failed", error="it is worse")
    await world.room.work.commit(world.pipeline, Commit(epoch=world.works[0].epoch, results=(bad,)))
    await world.upload("a", "2")
    await world.finish()
    await versions.rollback(world.room.pool, world.pipeline, 2)
    await world.finish()
    assert await world.serves() == 2
    assert await world.answers() == await world.wanted()


async def test_going_back_is_at_once_where_nothing_has_changed(world):
    await world.upload("a", "1")
    await world.finish()
    await world.put(dimensions=512)
    await world.finish()
    assert (await versions.rollback(world.room.pool, world.pipeline, 1)).state == "Serving"
    index = (await catalog.serving(world.room.pool, world.pipeline)).index
    assert (index.table, index.embedding.dimensions) == ("handbook-v1", 256)
    await world.put(dimensions=512)
    assert not await world.step(), "the manifest that was gone back from does not come again by itself"
    await world.put(dimensions=1024)
    await world.finish()
    assert await world.serves() == 3


async def test_going_back_never_brings_back_what_has_gone_since(world):
    going = await world.upload("going", "1")
    await world.upload("changing", "1")
    await world.finish()
    await world.put(dimensions=512)
    await world.finish()
    await world.remove(going)
    await world.upload("changing", "2")
    await world.upload("new", "1")
    await world.finish()
    assert (await versions.rollback(world.room.pool, world.pipeline, 1)).state == "Building"
    while await world.serves() == 2:
        assert await world.answers() == await world.wanted()
        assert await world.step(1)
    assert await world.answers() == await world.wanted()
    assert [(one.version, one.state) for one in await world.shown()] == [(2, "Ready"), (1, "Serving")]


async def test_only_what_changed_since_is_built_again_on_the_way_back(world):
    for name in "abcdef":
        await world.upload(name, "1")
    await world.finish()
    await world.put(dimensions=512)
    await world.finish()
    changed = await world.upload("a", "2")
    await world.finish()
    await versions.rollback(world.room.pool, world.pipeline, 1)
    await world.expire()
    built = []
    while await world.claim():
        built += [job.document_id for job in world.works[0].jobs if job.kind == "Build"]
        await world.commit()
    assert built == [changed]


async def test_only_as_many_versions_are_kept_as_the_manifest_says_and_no_number_comes_twice(world):
    await world.upload("a", "1")
    for dimensions in (512, 1024, 128):
        await world.put(dimensions=dimensions)
        await world.upload("a", f"{dimensions}")
        await world.finish()
    assert [one.version for one in await world.shown()] == [3, 2]
    await world.put(dimensions=128, keepVersions=1)
    assert [one.version for one in await world.shown()] == [3]
    with pytest.raises(NotFoundError, match="kept: 3"):
        await versions.rollback(world.room.pool, world.pipeline, 2)


async def test_the_table_of_a_version_that_is_gone_is_deleted_once_nobody_can_be_reading_it(world):
    await world.upload("a", "1")
    await world.finish()
    folder = f"tenants/{world.pipeline.tenant}/index/handbook-v1.lance/"
    store = world.room.objects
    await store._client.put_object(Bucket=store.bucket, Key=f"{folder}data/x.lance", Body=b"x")
    assert await store.page(folder)
    await world.put(dimensions=512, keepVersions=1)
    await world.finish()
    await housekeeping.delete_retired(world.room.pool, world.room.storage, grace_seconds=900)
    assert await store.page(folder)
    # The gateway's own housekeeping may be at it at the same time.
    async with asyncio.timeout(20):
        while await store.page(folder):
            await housekeeping.delete_retired(world.room.pool, world.room.storage, grace_seconds=0)


async def test_readers_see_all_of_what_a_sync_found_or_nothing_of_it(world):
    world.bucket = dict.fromkeys("abcdefgh", "1")
    await world.sync()
    await world.finish()
    before = await world.answers()
    assert sorted(before.values()) == ["1"] * 8
    world.bucket = dict.fromkeys("cdefghij", "2")
    await world.sync()
    seen = []
    while await world.step(3):
        answers = await world.answers()
        seen.append(answers == before)
        assert answers == before or sorted(answers.values()) == ["2"] * 8
    assert seen.count(True) >= 3
    assert seen[-1] is False


async def test_a_document_is_ready_once_it_can_be_found_and_not_before(world):
    world.bucket = {"a": "1"}
    await world.sync()
    await world.finish()
    world.bucket = {"b": "1", "c": "1", "d": "1"}
    await world.sync()
    await world.step()
    await world.step(2)
    page = await documents.listing(world.room.pool, world.pipeline, limit=10, cursor=None)
    assert {one.status for one in page.documents} <= {"Processing", "Pending", "Removing"}
    assert (await catalog.state(world.room.pool, world.pipeline)).pending == 4
    await world.finish()
    page = await documents.listing(world.room.pool, world.pipeline, limit=10, cursor=None)
    assert {one.name: one.status for one in page.documents} == {"b": "Ready", "c": "Ready", "d": "Ready"}


async def test_a_document_that_failed_for_now_does_not_keep_the_others_of_its_sync_waiting(world):
    world.bucket = {"a": "1"}
    await world.sync()
    await world.finish()
    world.bucket = {"a": "2", "b": "2"}
    await world.sync()
    await world.step()
    assert await world.claim(0, 1)
    later = JobResult(job_id=world.works[0].jobs[0].id, state="Failed", error="throttled", retry=True)
    await world.room.work.commit(world.pipeline, Commit(epoch=world.works[0].epoch, results=(later,)))
    assert await world.claim(0, 1)
    await world.commit()
    assert "2" in (await world.answers()).values()


STEPS = st.one_of(
    st.tuples(st.just("upload"), st.sampled_from("pqr"), st.sampled_from("xyz")),
    st.tuples(st.just("remove"), st.integers(0, 3)),
    st.tuples(st.just("sync"), st.dictionaries(st.sampled_from("abcde"), st.sampled_from("123"), max_size=5)),
    st.tuples(st.just("put"), st.sampled_from([256, 512, 1024]), st.integers(1, 3)),
    st.tuples(st.just("rollback"), st.integers(1, 5)),
    st.tuples(st.just("claim"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["commit", "commit", "abandon"]), st.integers(0, 1)),
    st.tuples(st.just("expire")),
)


async def run(room, steps) -> None:
    pipeline = PipelineId(f"t{os.urandom(6).hex()}", "handbook")
    await room.pool.execute("INSERT INTO tenant_storage (tenant, uid) VALUES ($1, 'x')", pipeline.tenant)
    world = World(room, pipeline)
    await world.put()
    listings = [{}]
    for name, *arguments in steps:
        await _take(world, listings, name, arguments)
        await _never_half_of_a_sync(world, listings)
    await world.sync()
    await world.finish()
    ids = {
        one.document_id: one for one in (await documents.listing(room.pool, pipeline, limit=100, cursor=None)).documents
    }
    answers = await world.answers()
    assert sorted(ids) == sorted(answers)
    assert {ids[key].name: content for key, content in answers.items()} == {
        ids[key].name if key in ids else key: content for key, content in (world.bucket | world.uploads).items()
    }
    shown = await world.shown()
    assert sum(one.current for one in shown) == 1
    assert all(one.state != "Building" for one in shown)


async def _take(world: World, listings: list, name: str, arguments: list) -> None:
    if name == "sync":
        # A bucket that changes while what was found in it is being fetched is another matter.
        if not await world.room.pool.fetchval(
            "SELECT sync_started_at IS NOT NULL OR EXISTS (SELECT FROM jobs WHERE tenant = $1 AND kind = 'Sync')"
            " FROM pipelines WHERE tenant = $1",
            world.pipeline.tenant,
        ):
            world.bucket = arguments[0]
            listings.append(arguments[0])
            await world.sync()
    elif name == "put":
        await world.put(dimensions=arguments[0], keepVersions=arguments[1])
    elif name == "rollback":
        with contextlib.suppress(NotFoundError):
            await versions.rollback(world.room.pool, world.pipeline, arguments[0])
    elif name == "remove":
        keys = sorted(world.uploads)
        if keys:
            await world.remove(keys[arguments[0] % len(keys)])
    else:
        await getattr(world, name)(*arguments)


async def _never_half_of_a_sync(world: World, listings: list) -> None:
    """From the second sync on, what readers find of the bucket is one of the last two listings, whole."""
    if len(listings) < 3:
        return
    rows = await world.room.pool.fetch(
        "SELECT document_id, name FROM documents WHERE tenant = $1 AND source = 'S3'", world.pipeline.tenant
    )
    names = {row["document_id"]: row["name"] for row in rows}
    found = {names[key]: content for key, content in (await world.answers()).items() if key in names}
    assert found in listings[-2:] or found == _before_last(listings)


def _before_last(listings: list) -> dict:
    return listings[-3] if len(listings) > 2 else {}


async def test_whatever_happens_in_whatever_order_readers_see_whole_syncs_and_the_end_is_what_the_sources_say(room):
    loop = asyncio.get_running_loop()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(steps=st.lists(STEPS, max_size=30))
    def holds(steps):
        asyncio.run_coroutine_threadsafe(run(room, steps), loop).result()

    await asyncio.to_thread(holds)
