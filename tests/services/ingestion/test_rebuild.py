"""Another recipe is built by real workers beside the index that serves, whoever dies on the way."""

import asyncio
import os
import random
import signal
import unicodedata
from collections import Counter

import pytest

from . import _rag

# Each is a worker that starts, works for a while and dies. `make chaos-rag` does 50 of each.
KILLS = int(os.environ.get("LOAM_RAG_KILLS", "2"))
WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "ledge")
OTHER = _rag.SPEC | {
    "chunking": {"strategy": "Sentence", "maxTokens": 40, "overlapTokens": 0},
    "embedding": {"model": "titan-embed", "dimensions": 512},
}


def _text(number: int, sentences: int = 12) -> bytes:
    chosen = random.Random(number)
    return " ".join(
        f"The {chosen.choice(WORDS)} of document {number} lies {count} miles from the {chosen.choice(WORDS)}."
        for count in range(sentences)
    ).encode()


def _mixed(number: int) -> bytes:
    """Many things about which the document says one sentence each: the names of pictures."""
    pictures = [
        unicodedata.name(chr(code)).lower() for code in random.Random(number).sample(range(0x1F300, 0x1F500), 60)
    ]
    return " ".join(f"There is a {picture} in it." for picture in pictures).encode()


async def _change(pipeline: _rag.Pipeline, spec: dict) -> None:
    endpoint = {"uid": pipeline.tenant, "spec": spec, "endpoint": pipeline.retrieval.url}
    await pipeline.platform.put(f"tenants/{pipeline.tenant}/pipelines/handbook", endpoint)


async def _versions(pipeline: _rag.Pipeline) -> dict[int, str]:
    return {one["version"]: one["state"] for one in (await pipeline.call("GET", "/versions"))["versions"]}


async def _is_exactly(pipeline: _rag.Pipeline) -> None:
    """Each document's chunks are in the index once, and its text is all there."""
    rows = await pipeline.rows()
    documents = await pipeline.documents()
    assert max(Counter(row["chunk_id"] for row in rows).values()) == 1
    assert {row["source"] for row in rows} == set(documents)
    for name in documents:
        whole = _text(int(name.removesuffix(".txt"))).decode()
        assert all(row["text"] in whole for row in rows if row["source"] == name)
        assert whole.endswith([row["text"] for row in rows if row["source"] == name][-1][-10:])


async def _ask_until(pipeline: _rag.Pipeline, over: asyncio.Event) -> int:
    """Search all the time, count the searches; each must find the document that it is about."""
    asked = 0
    while not over.is_set():
        number = asked % 6
        found = await pipeline.query(f"document {number}", filter={"source": f"{number}.txt"})
        assert {match["source"] for match in found} == {f"{number}.txt"}
        asked += 1
    return asked


async def _kill_one(pipeline: _rag.Pipeline, seconds: float) -> None:
    doomed = pipeline.worker(LOAM_JOBS_PER_BATCH="4")
    doomed.start()
    await asyncio.sleep(seconds)
    doomed.process.send_signal(signal.SIGKILL)
    doomed.stop()


@pytest.mark.timeout(1800)
async def test_workers_killed_during_ingestion_and_a_rebuild_lose_and_double_nothing_and_no_search_fails(pipeline):
    moments, over = random.Random(5), asyncio.Event()
    await asyncio.gather(*(pipeline.upload(f"{number}.txt", _text(number)) for number in range(6)))
    with pipeline.working():
        await pipeline.settled()
    pipeline.retrieval.start()
    asking = asyncio.create_task(_ask_until(pipeline, over))
    try:
        for number in range(6, 6 + KILLS):
            await pipeline.upload(f"{number}.txt", _text(number))
            await _kill_one(pipeline, moments.uniform(0, 1.2))
        await _change(pipeline, OTHER)
        for number in range(6 + KILLS, 6 + 2 * KILLS):
            await pipeline.upload(f"{number}.txt", _text(number))
            await _kill_one(pipeline, moments.uniform(0, 1.2))
        # What is left is done by two at once.
        with pipeline.working(LOAM_JOBS_PER_BATCH="3"), pipeline.working(LOAM_JOBS_PER_BATCH="3"):
            documents = await pipeline.settled(300)
    finally:
        over.set()
    assert await asking > 10
    assert {one["status"] for one in documents.values()} == {"Ready"}
    assert await _versions(pipeline) == {2: "Serving", 1: "Ready"}
    assert (await pipeline.pointer())["embedding"]["dimensions"] == 512
    await _is_exactly(pipeline)


async def test_a_rollback_answers_from_the_former_recipe_without_what_has_gone_since(pipeline):
    ids = {number: await pipeline.upload(f"{number}.txt", _text(number)) for number in range(4)}
    with pipeline.working():
        await pipeline.settled()
        await _change(pipeline, OTHER)
        await pipeline.settled()
        await pipeline.call("DELETE", f"/documents/{ids[0]}")
        await pipeline.upload("9.txt", _text(9))
        await pipeline.settled()
        assert (await pipeline.call("POST", "/rollback", {"version": 1}))["state"] == "Building"
        await pipeline.settled()
    assert await _versions(pipeline) == {2: "Ready", 1: "Serving"}
    assert (await pipeline.pointer())["embedding"]["dimensions"] == 256
    assert {match["source"] for match in await pipeline.query("document")} == {"1.txt", "2.txt", "3.txt", "9.txt"}
    await _is_exactly(pipeline)


async def test_a_version_that_finds_less_does_not_take_over_unless_a_user_asks_for_it_by_number(pipeline):
    names = [f"{number}.txt" for number in range(40)]
    for number, name in enumerate(names):
        await pipeline.upload(name, _mixed(number))
    # Whole documents as one passage each: their vectors are all alike, and a sentence finds the wrong one.
    coarse = _rag.SPEC | {"chunking": {"strategy": "Recursive", "maxTokens": 4000, "overlapTokens": 0}}
    with pipeline.working(LOAM_JOBS_PER_BATCH="64"):
        await pipeline.settled()
        await _change(pipeline, coarse)
        await pipeline.settled()
        rejected, serving = (await pipeline.call("GET", "/versions"))["versions"]
        assert (rejected["state"], serving["state"]) == ("Rejected", "Serving")
        assert "sampled passages" in rejected["reason"]
        await pipeline.call("POST", "/rollback", {"version": rejected["version"]})
        await pipeline.settled()
    assert await _versions(pipeline) == {2: "Serving", 1: "Ready"}
    assert len(await pipeline.rows()) == len(names)


async def test_chunks_that_another_chunking_leaves_as_they_are_keep_their_vectors(pipeline, platform):
    for number in range(3):
        await pipeline.upload(f"{number}.txt", _text(number, 1))
    longer = _rag.SPEC | {"chunking": {"strategy": "Recursive", "maxTokens": 80, "overlapTokens": 0}}
    with pipeline.working():
        await pipeline.settled()
        before = await platform.embedded_texts()
        await _change(pipeline, longer)
        await pipeline.settled()
    assert await _versions(pipeline) == {2: "Serving", 1: "Ready"}
    # The check asks for each of the three documents in both versions; nothing else is embedded.
    assert await platform.embedded_texts() - before <= 2 * 3
