"""How fast documents are ingested and found, and how much of an exact search is lost, all in one run on real parts.

Run it from the repository's root as ``python -m tests.bench.rag``. It prints a table and writes build/bench/rag.json.

- Ingestion: text documents through a real gateway and worker, against the time that parsing and embedding the same
  documents take by themselves. `ingest_ratio` is the latter divided by the former.
- Search: hybrid questions to tables of 1,000, 10,000 and 100,000 chunks in S3, as a worker writes them and retrieval
  reads them, without the call that embeds the question. `exact_ms_…` is a search by meaning alone through the same
  vectors in memory. `recall_loss` is the share of its 10 or its 50 nearest that a search by meaning misses, at worst.
- Memory: what each of 500 tenants' tables adds to one process.
"""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import boto3
import numpy as np

from loam_gateway.migrations import upgrade
from loam_shared.contracts.admin import StorageGrant

from ..services._servers import embedded
from ..services.ingestion import _rag
from . import pool, rag_parts, texts
from .figures import write

DOCUMENTS = 480
DOCUMENT_SENTENCES = 40
SIZES = (1_000, 10_000, 100_000)
CHUNK_SENTENCES = 4
QUESTIONS = 110
WARM_UP = 10
MODES = ("Hybrid", "Vector", "Keyword")
BUCKET = "loam-bench-rag"
LOGIN = "admin", "adminsecret"
TABLES = 500
Figures = dict[str, float]


def main() -> None:
    figures = asyncio.run(measure())
    write("rag", figures)


async def measure() -> Figures:
    with embedded.seaweedfs(*LOGIN) as endpoint:
        async with platform(endpoint) as running:
            figures = shown(await ingestion(running))
        figures |= await search(endpoint)
    with embedded.seaweedfs(*LOGIN) as endpoint:
        return figures | shown(await memory(endpoint))


@asynccontextmanager
async def platform(endpoint: str) -> AsyncIterator[_rag.Platform]:
    """A gateway with all that it needs."""
    with embedded.postgres() as postgres, embedded.valkey() as valkey:
        await asyncio.to_thread(upgrade, postgres.url("postgres"))
        async with _rag.platform(postgres, "postgres", valkey, endpoint) as running:
            yield running


async def ingestion(running: _rag.Platform) -> Figures:
    """Documents a second through a worker, and what part of its time parsing and embedding need alone."""
    contents = texts.passages(DOCUMENTS, DOCUMENT_SENTENCES, seed=1)
    documents = {f"document-{number}.txt": text.encode() for number, text in enumerate(contents)}
    async with running.pipeline(rag_parts.SPEC) as pipeline:
        for name, content in documents.items():
            await pipeline.upload(name, content)
        alone = await rag_parts.parse_and_embed(pipeline, documents)
        began = time.perf_counter()
        with pipeline.working():
            began = time.perf_counter()
            await done(running, pipeline.tenant)
            whole = time.perf_counter() - began
        states = {one["status"] for one in (await pipeline.documents()).values()}
        assert states == {"Ready"}
    return {
        "ingest_ratio": alone / whole,
        "ingest_documents_per_s": DOCUMENTS / whole,
        "parse_embed_documents_per_s": DOCUMENTS / alone,
    }


async def done(running: _rag.Platform, tenant: str) -> None:
    """Wait until nothing is left to do."""
    while True:
        if not await running.jobs(tenant):
            return
        await asyncio.sleep(0.05)


async def search(endpoint: str) -> Figures:
    """All sizes, smallest first."""
    chunks = texts.passages(max(SIZES), CHUNK_SENTENCES, seed=2)
    asked = texts.passages(QUESTIONS, 2, seed=3)
    vectors, by_question = rag_parts.embedded(chunks), rag_parts.embedded(asked)
    s3(endpoint).create_bucket(Bucket=BUCKET)
    questions = dict(zip(asked, by_question, strict=True))
    figures: Figures = {"recall_loss": 0.0}
    for size in SIZES:
        found = await search_in(endpoint, chunks[:size], vectors[:size], questions)
        figures["recall_loss"] = max(figures["recall_loss"], found.pop("recall_loss"))
        figures |= shown({f"{name}_{size}": value for name, value in found.items()})
    shown({"recall_loss": figures["recall_loss"]})
    return figures


async def search_in(
    endpoint: str, chunks: Sequence[str], vectors: rag_parts.Vectors, questions: Mapping[str, rag_parts.Vectors]
) -> Figures:
    """One table: what a process sees that has just opened it, then every mode, and the exact search."""
    grant = storage(endpoint, f"tenants/t{len(chunks)}/")
    os.environ |= environment(endpoint)
    uri = f"s3://{BUCKET}/{grant.prefix}index"
    written = await rag_parts.write_table(uri, "handbook", chunks, vectors)
    index = await rag_parts.opened(grant)
    figures: Figures = {"write_chunks_per_s": len(chunks) / written.seconds}
    for mode in MODES:
        reader = rag_parts.Reader(index, questions, mode)
        name = "query" if mode == "Hybrid" else mode.lower()
        times = await timed(lambda question, by=reader: by.search(question, written.pointer), list(questions))
        if mode == "Hybrid":
            figures["query_ms_first"] = times[0]
        figures |= percentiles(f"{name}_ms", times[WARM_UP:])
    exact = await timed(
        lambda question: asyncio.to_thread(exact_nearest, vectors, questions[question]), list(questions)
    )
    figures |= percentiles("exact_ms", exact[WARM_UP:])
    found = [await rag_parts.nearest_ids(index, written.pointer, vector, 50) for vector in questions.values()]
    losses = [lost(ids, exact_nearest(vectors, vector)) for ids, vector in zip(found, questions.values(), strict=True)]
    return figures | {"recall_loss": float(np.max(np.mean(losses, axis=0)))}


def exact_nearest(vectors: rag_parts.Vectors, vector: rag_parts.Vectors) -> list[int]:
    """The 50 whose cosine is greatest, best first; all vectors have the length 1."""
    cosines = vectors @ vector
    best = np.argpartition(-cosines, 50)[:50]
    return list(best[np.argsort(-cosines[best])])


def lost(found: Sequence[int], exact: Sequence[int]) -> tuple[float, float]:
    """The shares of the nearest 10 and 50 that are not among as many found."""
    return tuple(1 - len(set(found[:depth]) & set(exact[:depth])) / depth for depth in (10, 50))  # type: ignore[return-value]


async def timed(search: Callable[[str], Awaitable[object]], questions: Sequence[str]) -> list[float]:
    """Milliseconds of each, one after the other."""
    times = []
    for question in questions:
        began = time.perf_counter()
        await search(question)
        times.append((time.perf_counter() - began) * 1000)
    return times


def percentiles(name: str, times: list[float]) -> Figures:
    cuts = statistics.quantiles(times, n=100)
    return {f"{name}_p50": cuts[49], f"{name}_p95": cuts[94]}


async def memory(endpoint: str) -> Figures:
    """`mb_per_table` and `tables`, as ``tests.bench.pool`` measures them."""
    os.environ |= environment(endpoint)
    with embedded.scratch_folder() as folder:
        pointer = await pool.make_table(folder)
        await asyncio.to_thread(pool.copy_to_tenants, folder, endpoint, TABLES)
    figures = await pool.measure([pool.grant(endpoint, number) for number in range(TABLES)], pointer)
    return {name: figures[name] for name in ("tables", "mb_per_table")}


def storage(endpoint: str, prefix: str) -> StorageGrant:
    login = dict(zip(("access_key_id", "secret_access_key"), LOGIN, strict=True))
    return StorageGrant(bucket=BUCKET, prefix=prefix, region="us-east-1", endpoint=endpoint, **login)


def environment(endpoint: str) -> dict[str, str]:
    """What a worker's object store goes by."""
    login = dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), LOGIN, strict=True))
    return login | {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": endpoint}


def s3(endpoint: str) -> "boto3.client":
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=LOGIN[0],
        aws_secret_access_key=LOGIN[1],
    )


def shown(figures: Figures) -> Figures:
    """Print what is known so far."""
    for name, value in figures.items():
        print(f"{name:32} {value:12.4f}", flush=True)
    return figures


if __name__ == "__main__":
    main()
