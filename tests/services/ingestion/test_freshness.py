"""What changes at the source is in answers after one sync: all of it at once, and nothing is done twice for it."""

import asyncio
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from . import _rag

# `make chaos-rag` does it with 10,000, of which 100 change, 100 go, and 100 come.
DOCUMENTS = int(os.environ.get("LOAM_FRESH_DOCUMENTS", "200"))
CHANGES = max(1, DOCUMENTS // 100)


class Bucket:
    """A source bucket with documents about something of its own each."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.name = name
        self._s3 = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="admin",
            aws_secret_access_key="adminsecret",
        )  # fmt: skip
        self._s3.create_bucket(Bucket=name)

    def write(self, numbers: range, edition: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: self._write(number, edition), numbers))

    def delete(self, numbers: range) -> None:
        for number in numbers:
            self._s3.delete_object(Bucket=self.name, Key=f"{number:05}.txt")

    def _write(self, number: int, edition: str) -> None:
        self._s3.put_object(Bucket=self.name, Key=f"{number:05}.txt", Body=text(number, edition).encode())


def text(number: int, edition: str) -> str:
    """Of its two chunks only the second one is different in another edition."""
    about = f"Machine {number} stands in hall {number % 97} and was bought for {number * 7} crowns. " * 3
    rules = f"Machine {number} must be oiled every {number % 31 + 1} days, by whoever used it last. " * 3
    return f"{about}\n\n{rules}\nThe edition of this sheet about machine {number} is {edition}. "


@pytest.fixture
async def fresh(platform, s3_endpoint):
    """A pipeline over a bucket of documents that are all indexed."""
    bucket = Bucket(s3_endpoint, f"fresh-{DOCUMENTS}")
    await asyncio.to_thread(bucket.write, range(DOCUMENTS), "first")
    spec = _rag.SPEC | {
        "sources": [{"s3": {"bucket": bucket.name, "prefix": ""}}],
        "chunking": {"strategy": "Recursive", "maxTokens": 70, "overlapTokens": 0},
    }
    async with platform.pipeline(spec, sourceBuckets=[bucket.name]) as pipeline:
        with pipeline.working(LOAM_JOBS_PER_BATCH="64"):
            await _synced(pipeline, DOCUMENTS / 10 + 60)
            yield pipeline, bucket


async def _synced(pipeline: _rag.Pipeline, seconds: float) -> None:
    """Wait for the end of what is to be done."""
    async with asyncio.timeout(seconds):
        while await pipeline.platform.jobs(pipeline.tenant):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


async def _editions(pipeline: _rag.Pipeline) -> Counter:
    """How many documents of each edition the version that readers are told of holds."""
    return Counter(text.rsplit(" ", 1)[1].rstrip(".") for _, text in await pipeline.chunks() if "edition" in text)


@pytest.mark.timeout(3600)
async def test_one_sync_shows_all_that_changed_at_once_and_does_nothing_more_than_that(fresh, platform):
    pipeline, bucket = fresh
    before = await _editions(pipeline)
    assert before == {"first": DOCUMENTS}
    ingested = await pipeline.platform.database.fetch(
        "SELECT name, indexed_change FROM documents WHERE tenant = $1", pipeline.tenant
    )
    embedded = await platform.embedded_texts()
    bucket.write(range(CHANGES), "second")
    bucket.delete(range(CHANGES, 2 * CHANGES))
    bucket.write(range(DOCUMENTS, DOCUMENTS + CHANGES), "second")
    await pipeline.call("POST", "/sync")
    seen = []
    while await platform.jobs(pipeline.tenant):
        seen.append(await _editions(pipeline))
    after = {"first": DOCUMENTS - 2 * CHANGES, "second": 2 * CHANGES}
    assert all(editions in (before, after) for editions in seen)
    assert await _editions(pipeline) == after
    touched = await pipeline.platform.database.fetch(
        "SELECT name, indexed_change FROM documents WHERE tenant = $1", pipeline.tenant
    )
    unchanged = {tuple(row) for row in ingested} & {tuple(row) for row in touched}
    assert len(unchanged) == DOCUMENTS - 2 * CHANGES, "no other document was parsed again"
    # Of the two chunks of a changed document one is as it was.
    assert await platform.embedded_texts() - embedded == CHANGES + 2 * CHANGES
    found = await pipeline.query("edition of the sheet about machine 0", filter={"source": "00000.txt"})
    assert "is second" in " ".join(match["text"] for match in found)
    assert "is first" not in " ".join(match["text"] for match in found)
    assert await pipeline.query("machine", filter={"source": f"{CHANGES:05}.txt"}) == []
