"""What it takes one retrieval process to serve many tenants: memory per open table, and how fast they answer.

Run it from the repository's root as ``python -m tests.bench.pool [tables]``, with 500 where none are named. It prints a
table and writes build/bench/pool.json. `mb_per_table` is how much the process grows with each table that it has open,
beyond what the one session, which all share and whose size is bounded, holds of them.
"""

import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import lancedb
import numpy as np
import psutil
import pyarrow as pa
from lancedb.index import FTS

from loam_retrieval.adapters.databases import Databases
from loam_retrieval.adapters.index import Index
from loam_shared.contracts.admin import StorageGrant
from loam_shared.contracts.internal import Embedding, IndexPointer

from ..services._servers import embedded
from .figures import write

BUCKET = "loam-bench"
TABLE = "handbook-v1"
CHUNKS = 200
DIMENSIONS = 256
EMBEDDING = Embedding(model="titan-embed", dimensions=DIMENSIONS)
# The first tables bring code, threads and pools into memory that all the others use as well.
WARM_UP = 20


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with embedded.seaweedfs("admin", "adminsecret") as endpoint, tempfile.TemporaryDirectory() as folder:
        pointer = asyncio.run(make_table(Path(folder)))
        copy_to_tenants(Path(folder), endpoint, count)
        figures = asyncio.run(measure([grant(endpoint, number) for number in range(count)], pointer))
    write("pool", figures)
    for name, value in figures.items():
        print(f"{name:24} {value:10.2f}")


async def make_table(folder: Path) -> IndexPointer:
    """A table as ingestion makes it, with the index over its words."""
    random = np.random.default_rng(5)
    vectors = random.standard_normal((CHUNKS, DIMENSIONS), dtype=np.float32)
    rows = [_row(number, vectors[number].tolist()) for number in range(CHUNKS)]
    vector = pa.list_(pa.float32(), DIMENSIONS)
    schema = pa.schema(
        [*((name, _type(value)) for name, value in rows[0].items() if name != "vector"), ("vector", vector)]
    )
    database = await lancedb.connect_async(str(folder))
    table = await database.create_table(TABLE, pa.Table.from_pylist(rows, schema=schema))
    await table.create_index("text", config=FTS(with_position=False))
    return IndexPointer(table=TABLE, table_version=await table.version(), chunks=CHUNKS, embedding=EMBEDDING)


def copy_to_tenants(folder: Path, endpoint: str, count: int) -> None:
    """Put the table's files below every tenant's prefix; nothing in them says where they lie."""
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="admin",
        aws_secret_access_key="adminsecret",
    )
    s3.create_bucket(Bucket=BUCKET)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with ThreadPoolExecutor(8) as threads:
        for number in range(count):
            for name, content in files.items():
                threads.submit(s3.put_object, Bucket=BUCKET, Key=f"tenants/t{number}/index/{name}", Body=content)


def grant(endpoint: str, number: int) -> StorageGrant:
    """A tenant's storage. The region of its own keeps connections apart as a login of its own would."""
    return StorageGrant(
        bucket=BUCKET,
        prefix=f"tenants/t{number}/",
        region=f"us-east-{number}",
        endpoint=endpoint,
        access_key_id="admin",
        secret_access_key="adminsecret",
    )


async def measure(grants: list[StorageGrant], pointer: IndexPointer) -> dict[str, float]:
    """Open every tenant's table and search in it, twice; megabytes and milliseconds."""
    databases = Databases(index_mib=64, metadata_mib=32)
    vector = np.ones(DIMENSIONS, dtype=np.float32)
    indexes, cold = [], []
    for number, one in enumerate(grants):
        began = time.perf_counter()
        indexes.append(await databases.index(one))
        await search(indexes[-1], pointer, vector)
        cold.append(time.perf_counter() - began)
        if number + 1 == WARM_UP:
            before = held(databases)
    after = held(databases)
    warm = [await timed(index, pointer, vector) for index in indexes]
    return {
        "tables": len(grants),
        "mb_per_table": (after - before) / (len(grants) - WARM_UP) / 1e6,
        "session_mb": databases.cached_bytes / 1e6,
        "process_mb": psutil.Process().memory_info().rss / 1e6,
        "first_search_ms_p50": statistics.median(cold[WARM_UP:]) * 1e3,
        "search_ms_p50": statistics.median(warm) * 1e3,
        "search_ms_p95": statistics.quantiles(warm, n=20)[-1] * 1e3,
    }


def held(databases: Databases) -> int:
    """Bytes of the process that the session does not hold."""
    gc.collect()
    return int(psutil.Process().memory_info().rss) - databases.cached_bytes


async def timed(index: Index, pointer: IndexPointer, vector: Any) -> float:
    began = time.perf_counter()
    await search(index, pointer, vector)
    return time.perf_counter() - began


async def search(index: Index, pointer: IndexPointer, vector: Any) -> None:
    """What a hybrid question asks of an index."""
    by_meaning, by_words = await asyncio.gather(
        index.nearest(pointer, vector, None, 50), index.matching(pointer, "budget leave", None, 50)
    )
    assert by_meaning
    assert by_words


def _row(number: int, vector: list[float]) -> dict[str, Any]:
    text = " ".join(_words(number))
    return {
        "chunk_id": f"c{number}",
        "document_id": f"doc_{number // 4}",
        "text": text,
        "source": f"{number // 4}.md",
        "media_type": "text/markdown",
        "page": 1,
        "start": 0,
        "end": len(text),
        "vector": vector,
    }


def _words(number: int) -> Iterator[str]:
    for position in range(120):
        yield ("budget", "leave", "tenant", "key", f"word{(number * 31 + position * 7) % 997}")[position % 5]


def _type(value: Any) -> pa.DataType:
    return pa.int32() if isinstance(value, int) else pa.string()


if __name__ == "__main__":
    main()
