"""The index in LanceDB, read at exactly the version that the gateway names.

A search reads the indices only, which the session keeps in memory, and gives rows and scores; what is in a row is read
for those that are wanted. Reading a row is the dear part of a search: of 50 of them, as many as are candidates, it
takes more than a hundred requests to S3.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lancedb
import numpy as np
from lancedb.expr import Expr, col
from lancedb.query import MatchQuery
from lancedb.table import AsyncTable

from loam_retrieval.adapters.gateway import Vector
from loam_shared import index as layout
from loam_shared.contracts.internal import IndexPointer
from loam_shared.errors import UnavailableError

_COLUMNS = ["chunk_id", "document_id", "text", "source", "page", "start", "end", layout.VECTOR]
_ROW = "_rowid"
_OPEN_VERSIONS = 4
# More than any table has: what an index leaves out, a search would miss.
_ALL_PARTITIONS = 1 << 16
# Codes find twice as many as asked for, and the vectors tell the best of them.
_REFINED = 2
# How LanceDB calls an index that keeps vectors as they are.
_EXACT = "IvfFlat"


@dataclass(frozen=True)
class Hit:
    """A row that was found, by its place in the version searched; `score` is of the search: higher is better."""

    row: int
    score: float


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


@dataclass(frozen=True)
class _Open:
    """A version of a table, and whether its vector index holds codes instead of vectors."""

    table: AsyncTable
    coded: bool


class Index:
    """Searches in one tenant's database. Methods raise UnavailableError when the index cannot be read.

    A search by meaning is exact up to the half precision of stored vectors; where the index holds codes, up to 0.1 % of
    the nearest 50 are missed. A filter is applied before the nearest are chosen. Vectors of zeros are close to nothing.
    """

    def __init__(self, database: lancedb.AsyncConnection) -> None:
        self._database = database
        self._tables: OrderedDict[tuple[str, int], _Open] = OrderedDict()
        self._opening = asyncio.Lock()

    async def nearest(self, at: IndexPointer, vector: Vector, where: Expr | None, limit: int) -> list[Hit]:
        """The rows whose vectors are closest by cosine, which is their score."""
        opened = await self._opened(at)
        query = opened.table.query().nearest_to(vector).distance_type("cosine").nprobes(_ALL_PARTITIONS)
        if opened.coded:
            query = query.refine_factor(_REFINED)
        found = await self._hits(at, query, where, limit, "_distance")
        return [Hit(row, 1 - distance) for row, distance in found]

    async def matching(self, at: IndexPointer, text: str, where: Expr | None, limit: int) -> list[Hit]:
        """The rows that match the words of `text` best, by BM25, which is their score."""
        # Given as text, what stands in quotation marks would be a phrase, for which the index keeps no positions.
        query = (await self._opened(at)).table.query().nearest_to_text(MatchQuery(text, layout.TEXT))
        return [Hit(row, score) for row, score in await self._hits(at, query, where, limit, "_score")]

    async def cosines(self, at: IndexPointer, vector: Vector, rows: Sequence[int]) -> dict[int, float]:
        """The cosine to `vector` of each of these rows, but for those whose vector is zeros."""
        if not rows:
            return {}
        hits = await self.nearest(at, vector, col(_ROW).isin(list(rows)), len(rows))
        return {hit.row: hit.score for hit in hits}

    async def passages(self, at: IndexPointer, hits: Sequence[Hit]) -> list[Passage]:
        """What these rows say, in the same order."""
        if not hits:
            return []
        query = (await self._opened(at)).table.take_row_ids([hit.row for hit in hits]).with_row_id().select(_COLUMNS)
        with self._reading(at):
            rows = {row[_ROW]: row for row in (await query.to_arrow()).to_pylist()}
        return [_passage(rows[hit.row], hit.score) for hit in hits]

    async def _hits(
        self, at: IndexPointer, query: Any, where: Expr | None, limit: int, score: str
    ) -> list[tuple[int, float]]:
        filtered = query.where(where) if where is not None else query
        with self._reading(at):
            found = await filtered.select([score]).with_row_id().limit(limit).to_arrow()
        return list(zip(found[_ROW].to_pylist(), found[score].to_pylist(), strict=True))

    async def _opened(self, at: IndexPointer) -> _Open:
        key = (at.table, at.table_version)
        async with self._opening:
            if key not in self._tables:
                with self._reading(at):
                    self._tables[key] = await self._open(at)
            self._tables.move_to_end(key)
            while len(self._tables) > _OPEN_VERSIONS:
                self._tables.popitem(last=False)
            return self._tables[key]

    async def _open(self, at: IndexPointer) -> _Open:
        table = await self._database.open_table(at.table, version=at.table_version)
        kinds = {found.columns[0]: found.index_type for found in await table.list_indices()}
        return _Open(table, coded=kinds.get(layout.VECTOR, _EXACT) != _EXACT)

    @contextmanager
    def _reading(self, at: IndexPointer) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError, ValueError) as error:  # LanceDB raises nothing more telling
            # A table of this name may have been deleted and made anew since it was opened.
            self._tables.pop((at.table, at.table_version), None)
            raise UnavailableError("this version of the index cannot be read; ask again", retry_after=1) from error


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
