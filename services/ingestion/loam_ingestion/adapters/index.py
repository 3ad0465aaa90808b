"""The index in LanceDB, as its one writer keeps it.

What counts is the gateway's pointer, the head of a target: a table and a version of it. A writer that died, or that
lost its lease without noticing yet, may leave or still make versions beyond it. So a write starts from the head's
version (restoring it where the table has moved on) and afterwards checks that every version since then is its own.
Lance numbers versions without gaps and gives each number to one writer only, therefore a stranger's write shows as a
gap or as a count of rows that should not be, and the write is begun anew. Strangers after the last check do no harm:
the pointer names a version that is ours.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.expr import col
from lancedb.table import AsyncTable

from loam_ingestion.adapters.gateway import Vector, Vectors
from loam_ingestion.adapters.maintenance import NEVER, maintain
from loam_ingestion.errors import IndexMismatchError, IndexMovedError, IndexUnavailableError
from loam_shared import index as layout
from loam_shared.contracts.internal import Embedding, IndexPointer, Target

_PRUNING_MARGIN = timedelta(minutes=1)
_PRUNE_EVERY_SECONDS = 60.0
_ATTEMPTS = 3
# More than any vector index has.
_ALL_PARTITIONS = 1 << 16


@dataclass(frozen=True)
class Row:
    """A chunk as the index keeps it."""

    chunk_id: str
    document_id: str
    text: str
    source: str
    media_type: str
    page: int | None
    start: int
    end: int
    ordinal: int
    content_hash: str


@dataclass(frozen=True)
class Rows:
    """All chunks of one document, with a vector each."""

    rows: tuple[Row, ...] = ()
    vectors: Vectors | None = None


class Index:
    """One pipeline's index, of which each version is a table."""

    def __init__(self, database: lancedb.AsyncConnection, pipeline: str) -> None:
        self._database = database
        self._pipeline = pipeline
        self._prune_at: dict[str, float] = {}

    async def known_vectors(self, target: Target, hashes: Sequence[str]) -> dict[str, Vector]:
        """Vectors of those `hashes` that the target already holds. Raises IndexMismatchError, IndexUnavailableError."""
        if target.head is None or not hashes:
            return {}
        with _translated():
            table = await self._head(target)
            query = table.query().where(col("content_hash").isin(hashes)).select(["content_hash", layout.VECTOR])
            found = await query.to_arrow()
            return dict(zip(found["content_hash"].to_pylist(), _matrix(found), strict=True)) if found.num_rows else {}

    async def document_ids(self, target: Target) -> set[str]:
        """The documents that the target holds. Raises IndexMismatchError, IndexUnavailableError."""
        if target.head is None:
            return set()
        with _translated():
            found = await (await self._head(target)).query().select(["document_id"]).to_arrow()
            return set(found["document_id"].unique().to_pylist())

    async def samples(self, target: Target, most: int) -> dict[str, str]:
        """A passage of each of up to `most` documents, spread evenly over the target. Raises as `document_ids`."""
        if target.head is None or not target.head.chunks:
            return {}
        with _translated():
            table = await self._head(target)
            places = np.unique(np.linspace(0, target.head.chunks - 1, most, dtype=np.int64)).tolist()
            found = await table.take_offsets(places).select(["document_id", layout.TEXT]).to_arrow()
            return dict(zip(found["document_id"].to_pylist(), found[layout.TEXT].to_pylist(), strict=True))

    async def nearest_documents(self, target: Target, vector: Vector, depth: int) -> set[str]:
        """Documents of the `depth` passages whose vectors are closest. Raises as `document_ids`."""
        if target.head is None:
            return set()
        with _translated():
            query = (
                (await self._head(target)).query().nearest_to(vector).distance_type("cosine").nprobes(_ALL_PARTITIONS)
            )
            found = await query.select(["document_id", "_distance"]).limit(depth).to_arrow()
            return set(found["document_id"].to_pylist())

    async def replace(self, target: Target, documents: Mapping[str, Rows], *, busy: bool = False) -> IndexPointer:
        """Put each document's chunks in the place of all it had (nothing where it has none now).

        `busy` says that more is waiting to be written, so that indexing may wait for it.

        Raises IndexMovedError when it is not the only writer, IndexMismatchError when the vectors would not fit, and
        IndexUnavailableError.
        """
        with _translated():
            return await self._replace(target, documents, busy)

    async def _replace(self, target: Target, documents: Mapping[str, Rows], busy: bool) -> IndexPointer:
        for _ in range(_ATTEMPTS):
            table, clean = await self._at(target)
            age = await self._prunable_age(table, target) if clean else NEVER
            written = await self._write(table, documents, age, busy)
            if written is not None:
                return IndexPointer(
                    table=table.name,
                    table_version=written[0],
                    chunks=written[1],
                    index_version=target.index_version,
                    embedding=target.recipe.embedding,
                )
        raise IndexMovedError("another worker is writing to the index")

    async def _head(self, target: Target) -> AsyncTable:
        assert target.head is not None
        table = await self._database.open_table(target.head.table, version=target.head.table_version)
        await _check_schema(table, target.recipe.embedding)
        return table

    async def _at(self, target: Target) -> tuple[AsyncTable, bool]:
        """The table with the head's content, and whether nothing uncommitted had to be put aside for that."""
        head, embedding = target.head, target.recipe.embedding
        if head is None:
            name = layout.table_name(self._pipeline, target.index_version)
            return await self._database.create_table(name, schema=_schema(embedding), mode="overwrite"), False
        table = await self._database.open_table(head.table)
        await _check_schema(table, embedding)
        if await table.version() == head.table_version:
            return table, True
        await table.checkout(head.table_version)
        await table.restore()
        return table, False

    async def _prunable_age(self, table: AsyncTable, target: Target) -> timedelta:
        """How old a version must be to be read by nobody: older than the oldest that a reader may have been told of."""
        if target.readable is None or time.monotonic() < self._prune_at.get(table.name, 0):
            return NEVER
        self._prune_at[table.name] = time.monotonic() + _PRUNE_EVERY_SECONDS
        now = datetime.now()  # LanceDB gives local times without a zone.
        ages = [now - one["timestamp"] for one in await table.list_versions() if one["version"] == target.readable]
        return ages[0] + _PRUNING_MARGIN if ages else NEVER

    async def _write(
        self, table: AsyncTable, documents: Mapping[str, Rows], prunable_age: timedelta, busy: bool
    ) -> tuple[int, int] | None:
        """The version written and its count of rows; None when somebody else's write came between."""
        version, rows = await table.version(), await table.count_rows()
        deleted = await table.delete(col("document_id").isin(list(documents)))
        rows -= deleted.num_deleted_rows
        version += 1
        if deleted.version != version:
            return None
        added = _to_arrow(documents, await table.schema())
        if added.num_rows:
            rows += added.num_rows
            version += 1
            if (await table.add(added)).version != version:
                return None
        await maintain(table, rows, prunable_age, busy=busy)
        final = await table.version()
        return (final, rows) if await self._unchanged(table.name, range(version + 1, final + 1), rows) else None

    async def _unchanged(self, table: str, versions: Iterable[int], rows: int) -> bool:
        """Whether versions that should only have moved data about (an index, a compaction) hold as many rows as before.

        Somebody else's replacement of a document is two versions, so it shows in one of them.
        """
        for version in versions:
            if await (await self._database.open_table(table, version=version)).count_rows() != rows:
                return False
        return True


async def open_index(uri: str, pipeline: str) -> Index:
    """Connect to a tenant's database, with caches small enough for a small pod."""
    session = lancedb.Session(index_cache_size_bytes=32 << 20, metadata_cache_size_bytes=16 << 20)
    database = await lancedb.connect_async(uri, storage_options=layout.storage_options(), session=session)
    return Index(database, pipeline)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:  # LanceDB raises nothing more telling
        raise IndexUnavailableError(f"the index cannot be used: {error}") from error


async def _check_schema(table: AsyncTable, embedding: Embedding) -> None:
    schema = await table.schema()
    model, dimensions = (schema.metadata or {}).get(layout.EMBEDDING_MODEL), schema.field(layout.VECTOR).type.list_size
    if (model, dimensions) != (embedding.model.encode(), embedding.dimensions):
        raise IndexMismatchError(
            f"{table.name} was built with the embedding model {(model or b'unknown').decode()} "
            f"({dimensions} dimensions), not with {embedding.model} ({embedding.dimensions})",
            passing=False,
        )


def _schema(embedding: Embedding) -> pa.Schema:
    strings = ("chunk_id", "document_id", layout.TEXT, "source", "media_type", "content_hash")
    numbers = ("page", "start", "end", "ordinal")
    fields = [*((name, pa.string()) for name in strings), *((name, pa.int64()) for name in numbers)]
    # Half precision halves what a search reads and keeps, and moves a cosine by less than 0.001.
    return pa.schema(
        [*fields, (layout.VECTOR, pa.list_(pa.float16(), embedding.dimensions))],
        metadata={layout.EMBEDDING_MODEL: embedding.model.encode()},
    )


def _matrix(found: pa.Table) -> Vectors:
    flat: Vectors = found[layout.VECTOR].combine_chunks().flatten().to_numpy().astype(np.float32)
    return flat.reshape(found.num_rows, -1)


def _to_arrow(documents: Mapping[str, Rows], schema: pa.Schema) -> pa.Table:
    rows = [row for found in documents.values() for row in found.rows]
    vectors = [found.vectors for found in documents.values() if found.vectors is not None]
    vector_type = schema.field(layout.VECTOR).type
    flat = np.concatenate(vectors).ravel() if vectors else np.empty(0, np.float32)
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names if name != layout.VECTOR} | {
        layout.VECTOR: pa.FixedSizeListArray.from_arrays(
            pa.array(flat.astype(vector_type.value_type.to_pandas_dtype())), vector_type.list_size
        )
    }
    return pa.table(columns, schema=schema)
