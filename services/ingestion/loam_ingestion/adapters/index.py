"""The index in LanceDB, as its one writer keeps it.

What counts is the gateway's pointer: a table and a version of it. A writer that died, or that lost its lease without
noticing yet, may leave or still make versions beyond it. So a write starts from the pointer's version (restoring it
where the table has moved on) and afterwards checks that every version since then is its own. Lance numbers versions
without gaps and gives each number to one writer only, therefore a stranger's write shows as a gap or as a count of rows
that should not be, and the write is begun anew. Strangers after the last check do no harm: the pointer names a version
that is ours.
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
from lancedb.index import FTS
from lancedb.table import AsyncTable

from loam_ingestion.adapters.gateway import Vectors
from loam_ingestion.errors import IndexMismatchError, IndexMovedError, IndexUnavailableError
from loam_ingestion.pipeline import Embedding
from loam_shared import index as layout
from loam_shared.contracts.internal import IndexPointer

# Optimising prunes, too, and would by default take away a version that is a week old and still the one that counts.
_NO_PRUNING = timedelta(days=36_500)
_PRUNING_MARGIN = timedelta(minutes=1)
_ATTEMPTS = 3


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
    """One pipeline's index."""

    def __init__(
        self, database: lancedb.AsyncConnection, pipeline: str, embedding: Embedding, superseded_seconds: float
    ) -> None:
        self._database = database
        self._pipeline = pipeline
        self._schema = _schema(embedding.model, embedding.dimensions)
        self._grace = timedelta(seconds=superseded_seconds)
        self._prune_at = 0.0

    async def known_vectors(self, pointer: IndexPointer | None, hashes: Sequence[str]) -> dict[str, Vectors]:
        """Vectors of those `hashes` that the index already holds. Raises IndexMismatchError, IndexUnavailableError."""
        if pointer is None or not hashes:
            return {}
        with _translated():
            return await self._vectors_of(pointer, hashes)

    async def _vectors_of(self, pointer: IndexPointer, hashes: Sequence[str]) -> dict[str, Vectors]:
        table = await self._database.open_table(pointer.table, version=pointer.table_version)
        await self._check_schema(table)
        query = table.query().where(col("content_hash").isin(hashes)).select(["content_hash", layout.VECTOR])
        found = await query.to_arrow()
        if not found.num_rows:
            return {}
        flat = found[layout.VECTOR].combine_chunks().flatten().to_numpy()
        vectors = flat.reshape(found.num_rows, -1)
        return dict(zip(found["content_hash"].to_pylist(), vectors, strict=True))

    async def replace(self, pointer: IndexPointer | None, documents: Mapping[str, Rows]) -> IndexPointer:
        """Put each document's chunks in the place of all it had (nothing where it has none now).

        Raises IndexMovedError when it is not the only writer, IndexMismatchError when the vectors would not fit, and
        IndexUnavailableError.
        """
        with _translated():
            return await self._replace(pointer, documents)

    async def _replace(self, pointer: IndexPointer | None, documents: Mapping[str, Rows]) -> IndexPointer:
        for _ in range(_ATTEMPTS):
            table, clean = await self._at(pointer)
            age = await self._prunable_age(table) if clean else _NO_PRUNING
            written = await self._write(table, documents, age)
            if written is not None:
                index_version = pointer.index_version if pointer else 1
                return IndexPointer(
                    table=table.name, table_version=written[0], chunks=written[1], index_version=index_version
                )
        raise IndexMovedError("another worker is writing to the index")

    async def _at(self, pointer: IndexPointer | None) -> tuple[AsyncTable, bool]:
        """The table with the pointer's content, and whether nothing uncommitted had to be put aside for that."""
        if pointer is None:
            name = layout.table_name(self._pipeline, 1)
            return await self._database.create_table(name, schema=self._schema, mode="overwrite"), False
        table = await self._database.open_table(pointer.table)
        await self._check_schema(table)
        if await table.version() == pointer.table_version:
            return table, True
        await table.checkout(pointer.table_version)
        await table.restore()
        return table, False

    async def _prunable_age(self, table: AsyncTable) -> timedelta:
        """How old a version must be to be read by nobody: superseded for at least the grace time.

        It is the age of the newest version from before the grace, which may have been served until the grace began. The
        pointer's version is that one or younger, so it never goes before the commit that supersedes it.
        """
        if time.monotonic() < self._prune_at:
            return _NO_PRUNING
        self._prune_at = time.monotonic() + self._grace.total_seconds() / 2
        now = datetime.now()  # LanceDB gives local times without a zone.
        made = [now - version["timestamp"] for version in await table.list_versions()]
        return min((age for age in made if age >= self._grace), default=_NO_PRUNING) + _PRUNING_MARGIN

    async def _check_schema(self, table: AsyncTable) -> None:
        schema = await table.schema()
        model, vector = (schema.metadata or {}).get(layout.EMBEDDING_MODEL), schema.field(layout.VECTOR).type
        ours = self._schema.metadata[layout.EMBEDDING_MODEL], self._schema.field(layout.VECTOR).type
        if (model, vector) != ours:
            raise IndexMismatchError(
                f"the index was built with the embedding model {(model or b'unknown').decode()} "
                f"({vector.list_size} dimensions); set embedding back to it, or make a new pipeline",
                passing=False,
            )

    async def _write(
        self, table: AsyncTable, documents: Mapping[str, Rows], prunable_age: timedelta
    ) -> tuple[int, int] | None:
        """The version written and its count of rows; None when somebody else's write came between."""
        version, rows = await table.version(), await table.count_rows()
        deleted = await table.delete(col("document_id").isin(list(documents)))
        rows -= deleted.num_deleted_rows
        version += 1
        if deleted.version != version:
            return None
        added = _to_arrow(documents, self._schema)
        if added.num_rows:
            rows += added.num_rows
            version += 1
            if (await table.add(added)).version != version:
                return None
        if rows and not await table.list_indices():
            await table.create_index(layout.TEXT, config=FTS(with_position=False))
        else:
            await table.optimize(cleanup_older_than=prunable_age)
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


async def open_index(uri: str, pipeline: str, embedding: Embedding, superseded_seconds: float) -> Index:
    """Connect to a tenant's database, with caches small enough for a small pod.

    Versions of the table that were superseded at least `superseded_seconds` ago are deleted by and by.
    """
    session = lancedb.Session(index_cache_size_bytes=32 << 20, metadata_cache_size_bytes=16 << 20)
    database = await lancedb.connect_async(uri, storage_options=layout.storage_options(), session=session)
    return Index(database, pipeline, embedding, superseded_seconds)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:  # LanceDB raises nothing more telling
        raise IndexUnavailableError(f"the index cannot be used: {error}") from error


def _schema(model: str, dimensions: int) -> pa.Schema:
    strings = ("chunk_id", "document_id", layout.TEXT, "source", "media_type", "content_hash")
    numbers = ("page", "start", "end", "ordinal")
    fields = [*((name, pa.string()) for name in strings), *((name, pa.int64()) for name in numbers)]
    return pa.schema(
        [*fields, (layout.VECTOR, pa.list_(pa.float32(), dimensions))],
        metadata={layout.EMBEDDING_MODEL: model.encode()},
    )


def _to_arrow(documents: Mapping[str, Rows], schema: pa.Schema) -> pa.Table:
    rows = [row for found in documents.values() for row in found.rows]
    vectors = [found.vectors for found in documents.values() if found.vectors is not None]
    flat = np.concatenate(vectors).astype(np.float32).ravel() if vectors else np.empty(0, np.float32)
    vector_type = schema.field(layout.VECTOR).type
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names if name != layout.VECTOR} | {
        layout.VECTOR: pa.FixedSizeListArray.from_arrays(pa.array(flat), vector_type.list_size)
    }
    return pa.table(columns, schema=schema)
