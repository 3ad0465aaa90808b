"""Documents on their way from the API into answers, through the real gateway and real workers."""

import asyncio
import signal
from collections import Counter

import boto3
import pytest

from loam_shared.contracts.internal import Claim, Work

from . import _rag

HANDBOOK = b"# Leave\n\nEverybody gets 25 days of paid leave.\n\n# Badges\n\nWear your badge at all times.\n"


def _rules(word: str, number: int = 60) -> bytes:
    return "\n\n".join(f"Rule {n}. {word} is kept in room {n}, and nowhere else." for n in range(number)).encode()


async def test_an_uploaded_document_is_found_at_the_place_it_names(pipeline):
    await pipeline.upload("handbook.md", HANDBOOK)
    with pipeline.working():
        documents = await pipeline.settled()
    assert documents["handbook.md"]["status"] == "Ready"
    [match] = await pipeline.query("how many days of leave")
    assert match["source"] == "handbook.md"
    assert match["text"] == HANDBOOK.decode()[match["span"]["start"] : match["span"]["end"]]


async def test_a_document_that_changes_or_goes_is_changed_or_gone_in_what_is_found(pipeline):
    changing = await pipeline.upload("changing.txt", b"The cafeteria closes at three.")
    going = await pipeline.upload("going.txt", b"The parking garage is free.")
    with pipeline.working():
        await pipeline.settled()
        assert await pipeline.upload("changing.txt", b"The cafeteria closes at five.") == changing
        await pipeline.call("DELETE", f"/documents/{going}")
        await pipeline.settled()
    assert await pipeline.chunks() == [("changing.txt", "The cafeteria closes at five.")]
    assert set(await pipeline.documents()) == {"changing.txt"}


async def test_a_document_that_cannot_be_read_says_so_and_the_others_go_on(pipeline):
    await pipeline.upload("empty.pdf", b"")
    await pipeline.upload("fake.pdf", b"I am no PDF")
    await pipeline.upload("good.md", HANDBOOK)
    with pipeline.working():
        documents = await pipeline.settled()
    assert {name: one["status"] for name, one in documents.items()} == {
        "empty.pdf": "Failed",
        "fake.pdf": "Failed",
        "good.md": "Ready",
    }
    assert "send it again" in documents["empty.pdf"]["error"]
    assert "correct the name" in documents["fake.pdf"]["error"]
    assert {source for source, _ in await pipeline.chunks()} == {"good.md"}


async def test_a_document_that_turns_unreadable_is_not_answered_from_its_past(pipeline):
    with pipeline.working():
        await pipeline.upload("notes.txt", b"The old rule.")
        await pipeline.settled()
        await pipeline.upload("notes.txt", bytes(range(256)))
        documents = await pipeline.settled()
    assert documents["notes.txt"]["status"] == "Failed"
    assert await pipeline.chunks() == []


async def test_unchanged_chunks_are_never_embedded_twice(pipeline, platform):
    with pipeline.working():
        await pipeline.upload("long.txt", _rules("Coffee"))
        await pipeline.settled()
        before = await platform.embedded_texts()
        await pipeline.upload("long.txt", _rules("Coffee") + b"\n\nOne more rule, about tea.")
        await pipeline.upload("copy.txt", _rules("Coffee"))
        documents = await pipeline.settled()
    assert documents["copy.txt"]["chunks"] > 10
    assert 1 <= await platform.embedded_texts() - before <= 2


async def test_a_source_bucket_and_a_config_map_are_kept_in_step_by_a_sync(platform, s3_endpoint):
    bucket = "docs-of-sync-test"
    s3 = boto3.client(
        "s3", endpoint_url=s3_endpoint, region_name="us-east-1", aws_access_key_id="admin",
        aws_secret_access_key="adminsecret",
    )  # fmt: skip
    s3.create_bucket(Bucket=bucket)
    sources = [
        {"s3": {"bucket": bucket, "prefix": "handbook/", "suffixes": [".md", ".txt"]}},
        {"configMap": {"name": "faq"}},
    ]
    for key, text in {"handbook/a.md": "Alpha rule.", "handbook/b.md": "Beta rule.", "other/c.md": "Not ours."}.items():
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode())
    s3.put_object(Bucket=bucket, Key="handbook/picture.png", Body=b"png")
    async with platform.pipeline(_rag.SPEC | {"sources": sources}, sourceBuckets=[bucket]) as pipeline:
        faq = pipeline.folder / "sources" / "faq"
        faq.mkdir(parents=True)
        (faq / "lunch.md").write_text("Lunch is at noon.")
        with pipeline.working():
            await pipeline.settled()
            assert [text for _, text in await pipeline.chunks()] == ["Lunch is at noon.", "Alpha rule.", "Beta rule."]
            s3.delete_object(Bucket=bucket, Key="handbook/a.md")
            s3.put_object(Bucket=bucket, Key="handbook/b.md", Body=b"Beta rule, changed.")
            (faq / "lunch.md").write_text("Lunch is at one.")
            await pipeline.call("POST", "/sync")
            await pipeline.settled()
        assert [text for _, text in await pipeline.chunks()] == ["Lunch is at one.", "Beta rule, changed."]


async def test_a_bucket_that_may_not_be_read_removes_nothing(platform, s3_endpoint):
    sources = [{"s3": {"bucket": "somebody-elses", "prefix": ""}}, {"uploads": {}}]
    async with platform.pipeline(_rag.SPEC | {"sources": sources}) as pipeline:
        await pipeline.upload("kept.txt", b"This stays.")
        with pipeline.working():
            await pipeline.settled()
            await pipeline.call("POST", "/sync")
            documents = await pipeline.settled()
        assert documents["kept.txt"]["status"] == "Ready"
        error = await platform.database.fetchval("SELECT sync_error FROM pipelines WHERE tenant = $1", pipeline.tenant)
        assert "sourceBuckets" in error


async def test_two_workers_never_duplicate_or_lose_a_chunk(pipeline):
    with pipeline.working(LOAM_JOBS_PER_BATCH="2"), pipeline.working(LOAM_JOBS_PER_BATCH="2"):
        for round_number in range(2):
            names = [f"doc{number}.txt" for number in range(10)]
            await asyncio.gather(*(pipeline.upload(name, _rules(f"{name} {round_number}", 6)) for name in names))
            documents = await pipeline.settled()
    await _is_exactly(pipeline, documents)


@pytest.mark.parametrize("moment", range(3))
async def test_a_worker_killed_in_the_middle_leaves_the_last_good_version_and_loses_nothing(pipeline, moment):
    """Killed at a moment that the round chooses: waiting, parsing, embedding or writing, as it comes."""
    with pipeline.working():
        await pipeline.upload("stable.txt", _rules("Stable", 5))
        await pipeline.settled()
    before = await pipeline.chunks()
    names = [f"doc{number}.txt" for number in range(6)]
    for name in names:
        await pipeline.upload(name, _rules(name, 8))
    doomed = pipeline.worker()
    doomed.start()
    await _until_under_way(pipeline)
    await asyncio.sleep(0.25 * moment)
    doomed.process.send_signal(signal.SIGKILL)
    doomed.stop()
    seen = await pipeline.chunks()
    # Either nothing of the batch counts yet or all of it.
    assert [one for one in seen if one[0] == "stable.txt"] == before
    with pipeline.working():
        documents = await pipeline.settled()
    assert all(one["status"] == "Ready" for one in documents.values())
    await _is_exactly(pipeline, documents)


async def test_a_worker_that_slept_through_its_lease_changes_nothing(pipeline):
    await pipeline.upload("a.txt", _rules("First", 1000))
    sleeper = pipeline.worker()
    sleeper.start()
    try:
        await _until_under_way(pipeline)
        sleeper.process.suspend()
        with pipeline.working():
            await pipeline.settled()
            await pipeline.upload("a.txt", _rules("Second", 7))
            documents = await pipeline.settled()
            sleeper.process.resume()
            await pipeline.upload("b.txt", _rules("Third", 7))
            documents = await pipeline.settled()
        await _is_exactly(pipeline, documents)
    finally:
        sleeper.stop()


async def test_a_stopped_worker_gives_its_work_back_at_once(pipeline, platform):
    with pipeline.working() as worker:
        process = worker.process
    assert not process.is_running()
    await pipeline.upload("a.txt", _rules("First", 3000))
    first = pipeline.worker()
    first.start()
    await _until_under_way(pipeline)
    first.stop()
    headers = {"authorization": f"Bearer {(pipeline.folder / 'key').read_text()}", "content-type": "application/json"}
    url = f"{platform.internal}/internal/v1/pipelines/handbook/work/claim"
    body = Claim(worker="test", wait_seconds=0).to_json()
    async with platform.session.post(url, data=body, headers=headers) as response:
        assert response.status == 200, "the lease must be free without waiting for it to run out"
        assert Work.model_validate_json(await response.read()).jobs[0].attempt <= 2


async def test_no_text_of_a_document_is_in_the_logs(pipeline):
    await pipeline.upload("secret.txt", b"The password of the vault is swordfish.")
    await pipeline.upload("broken.pdf", b"%PDF-1.4 swordfish")
    with pipeline.working() as worker:
        await pipeline.settled()
        await pipeline.query("swordfish")
    logs = [*pipeline.folder.glob("*.log"), worker.folder.parent / f"{worker.folder.name}.log"]
    assert logs
    assert not any("swordfish" in log.read_text() for log in logs)


async def _until_under_way(pipeline: _rag.Pipeline) -> None:
    query = "SELECT count(*) FROM pipelines WHERE tenant = $1 AND lease_expires_at > now()"
    async with asyncio.timeout(30):
        while not await pipeline.platform.database.fetchval(query, pipeline.tenant):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def _is_exactly(pipeline: _rag.Pipeline, documents: dict) -> None:
    """The index holds each document's chunks once: no chunk is double, none is missing."""
    rows = await pipeline.rows()
    assert max(Counter(row["chunk_id"] for row in rows).values()) == 1
    assert Counter(row["source"] for row in rows) == {name: one["chunks"] for name, one in documents.items()}
