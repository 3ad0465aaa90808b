"""The index in LanceDB, read at exactly the version that the gateway names."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import lancedb
import numpy as np
from lancedb.expr import Expr
from lancedb.query import MatchQuery
from lancedb.table import AsyncTable

from loam_retrieval.adapters.gateway import Vector
from loam_shared import index as layout
from loam_shared.contracts.internal import IndexPointer
from loam_shared.errors import UnavailableError

_COLUMNS = ["chunk_id", "document_id", "text", "source", "page", "start", "end", layout.VECTOR]
_OPEN_VERSIONS = 4


@dataclass(frozen=True)
class Passage:
    """A chunk that was found, `score` by the search that found it: higher is better."""

    chunk_id: str
    document_id: str
    text: str
    source: str
    page: int | None
    start: int
    end: int
    vector: Vector
    score: float


class Index:
    """Searches in one tenant's database. Methods raise UnavailableError when the index cannot be read."""

    def __init__(self, database: lancedb.AsyncConnection) -> None:
        self._database = database
        self._tables: OrderedDict[tuple[str, int], AsyncTable] = OrderedDict()
        self._opening = asyncio.Lock()

    async def nearest(self, at: IndexPointer, vector: Vector, where: Expr | None, limit: int) -> list[Passage]:
        """The passages whose vectors are closest by cosine, which is their score. Exact: every row is compared."""
        table = await self._table(at)
        query = table.query().nearest_to(vector).distance_type("cosine").bypass_vector_index()
        return [_passage(row, 1 - row["_distance"]) for row in await _rows(query, where, limit, "_distance")]

    async def matching(self, at: IndexPointer, text: str, where: Expr | None, limit: int) -> list[Passage]:
        """The passages that match the words of `text` best, by BM25, which is their score."""
        table = await self._table(at)
        # Given as text, what stands in quotation marks would be a phrase, for which the index keeps no positions.
        query = table.query().nearest_to_text(MatchQuery(text, layout.TEXT))
        return [_passage(row, row["_score"]) for row in await _rows(query, where, limit, "_score")]

    async def _table(self, at: IndexPointer) -> AsyncTable:
        key = (at.table, at.table_version)
        async with self._opening:
            if key not in self._tables:
                self._tables[key] = await self._open(at)
            self._tables.move_to_end(key)
            while len(self._tables) > _OPEN_VERSIONS:
                self._tables.popitem(last=False)
            return self._tables[key]

    async def _open(self, at: IndexPointer) -> AsyncTable:
        try:
            return await self._database.open_table(at.table, version=at.table_version)
        except (RuntimeError, OSError, ValueError) as error:  # LanceDB raises nothing more telling
            raise UnavailableError("this version of the index cannot be read; ask again", retry_after=1) from error


async def open_index(uri: str) -> Index:
    """Connect to a tenant's database, with caches small enough for a small pod."""
    session = lancedb.Session(index_cache_size_bytes=64 << 20, metadata_cache_size_bytes=32 << 20)
    return Index(await lancedb.connect_async(uri, storage_options=layout.storage_options(), session=session))


async def _rows(query: Any, where: Expr | None, limit: int, score: str) -> list[dict[str, Any]]:
    filtered = query.where(where) if where is not None else query
    try:
        table = await filtered.select([*_COLUMNS, score]).limit(limit).to_arrow()
    except (RuntimeError, OSError, ValueError) as error:
        raise UnavailableError("the index cannot be read now; ask again", retry_after=1) from error
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _passage(row: dict[str, Any], score: float) -> Passage:
    return Passage(
        chunk_id=row["chunk_id"],
        document_id=row["document_id"],
        text=row["text"],
        source=row["source"],
        page=row["page"],
        start=row["start"],
        end=row["end"],
        vector=np.asarray(row[layout.VECTOR], dtype=np.float32),
        score=score,
    )
