"""Tables that are kept in shape: whatever is indexed, merged or left alone, a search finds what an exact one does."""

import uuid
from datetime import timedelta

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.table import AsyncTable

from loam_ingestion.adapters import maintenance
from loam_ingestion.adapters.maintenance import maintain
from loam_retrieval.adapters.index import Index
from loam_retrieval.filters import expression
from loam_shared.contracts.internal import Embedding, IndexPointer
from loam_shared.index import storage_options

pytestmark = pytest.mark.usefixtures("aws")
DIMENSIONS = 64
TABLE = "handbook-v1"
EMBEDDING = Embedding(model="titan-embed", dimensions=DIMENSIONS)
STRINGS = ("chunk_id", "document_id", "text", "source", "media_type", "content_hash")
NUMBERS = ("page", "start", "end", "ordinal")


def _schema(vector: pa.DataType) -> pa.Schema:
    fields = [*((name, pa.string()) for name in STRINGS), *((name, pa.int64()) for name in NUMBERS)]
    return pa.schema([*fields, ("vector", pa.list_(vector, DIMENSIONS))])


class Kept:
    """A table, and beside it in memory what it has to hold: a vector by chunk."""

    def __init__(self, database: lancedb.AsyncConnection, table: AsyncTable) -> None:
        self.database = database
        self.table = table
        self.vectors: dict[str, np.ndarray] = {}
        self._random = np.random.default_rng(7)
        self._centres = self._random.standard_normal((20, DIMENSIONS))

    @property
    def index(self) -> Index:
        return Index(self.database)

    def question(self) -> np.ndarray:
        near = self._centres[self._random.integers(20)] + self._random.standard_normal(DIMENSIONS)
        return (near / np.linalg.norm(near)).astype(np.float32)

    async def add(self, count: int) -> None:
        first = len(self.vectors) + int(self._random.integers(10**6)) * 10**4
        names = [f"c{first + number}" for number in range(count)]
        vectors = np.array([self.question() for _ in names], np.float16)
        self.vectors |= dict(zip(names, vectors.astype(np.float32), strict=True))
        columns = {
            **{name: [f"{name} of {chunk}" for chunk in names] for name in STRINGS},
            **{name: [1] * count for name in NUMBERS},
            "chunk_id": names,
            "document_id": [f"d{number // 4}-{first}" for number in range(count)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSIONS),
        }
        await self.table.add(pa.table(columns, schema=_schema(pa.float16())))

    async def delete(self, share: float) -> None:
        gone = [name for name in self.vectors if self._random.random() < share]
        await self.table.delete(f"chunk_id IN ({', '.join(map(repr, gone))})")
        for name in gone:
            del self.vectors[name]

    async def pointer(self) -> IndexPointer:
        version, rows = await self.table.version(), await self.table.count_rows()
        return IndexPointer(table=TABLE, table_version=version, chunks=rows, embedding=EMBEDDING)

    async def found(self, at: IndexPointer, question: np.ndarray, depth: int, **wanted: list[str]) -> list[str]:
        hits = await self.index.nearest(at, question, expression(wanted), depth)
        return [passage.chunk_id for passage in await self.index.passages(at, hits)]

    def exact(self, question: np.ndarray, depth: int) -> list[str]:
        names = list(self.vectors)
        vectors = np.array([self.vectors[name] for name in names])
        cosines = vectors @ question / np.linalg.norm(vectors, axis=1)
        return [names[place] for place in np.argsort(-cosines)[:depth]]

    async def loss(self, questions: int = 20, depth: int = 50) -> float:
        """The share of the exact search's nearest that are not found."""
        at, lost = await self.pointer(), []
        for _ in range(questions):
            question = self.question()
            found = await self.found(at, question, depth)
            assert len(found) == len(set(found)) == min(depth, len(self.vectors))
            lost.append(len(set(self.exact(question, depth)) - set(found)) / depth)
        return float(np.mean(lost))

    async def kinds(self) -> dict[str, str]:
        return {found.columns[0]: found.index_type for found in await self.table.list_indices()}


@pytest.fixture
async def kept():
    uri = f"s3://loam-index/tenants/{uuid.uuid4().hex}/index"
    database = await lancedb.connect_async(uri, storage_options=storage_options())
    return Kept(database, await database.create_table(TABLE, schema=_schema(pa.float16())))


async def test_a_search_is_exact_whatever_was_indexed_deleted_and_merged(kept, monkeypatch):
    monkeypatch.setattr(maintenance, "_DELTAS", 2)
    monkeypatch.setattr(maintenance, "_PARTITION_ROWS", 8)
    seen = set()
    for count in (100, 200, 100, 300, 300, 300, 300, 10):
        await kept.add(count)
        await kept.delete(0.05)
        await maintain(kept.table, len(kept.vectors))
        assert await kept.loss(5) == 0
        seen |= set((await kept.kinds()).values())
    assert seen == {"FTS", "IvfFlat", "BTree"}


async def test_codes_instead_of_vectors_lose_next_to_nothing(kept, monkeypatch):
    monkeypatch.setattr(maintenance, "_EXACT_BYTES", 1)
    await kept.add(3000)
    await maintain(kept.table, len(kept.vectors))
    await kept.delete(0.1)
    await kept.add(400)
    await maintain(kept.table, len(kept.vectors))
    assert (await kept.kinds())["vector"] == "IvfRq"
    assert await kept.loss() <= 0.005


@pytest.mark.parametrize("exact_bytes", [1, 128 << 20])
async def test_a_filter_that_keeps_few_rows_finds_all_of_them(kept, monkeypatch, exact_bytes):
    monkeypatch.setattr(maintenance, "_EXACT_BYTES", exact_bytes)
    await kept.add(1000)
    await maintain(kept.table, len(kept.vectors))
    at, question = await kept.pointer(), kept.question()
    furthest = kept.exact(question, 1000)[-1]
    rows = await kept.table.query().where(f"chunk_id = '{furthest}'").to_list()
    document = rows[0]["document_id"]
    found = await kept.found(at, question, 10, documentId=[document])
    assert len(found) == 4
    assert furthest in found
    by_words = await kept.index.matching(at, "text of", expression({"documentId": [document]}), 10)
    assert len(by_words) == 4


async def test_a_reader_of_a_version_is_not_disturbed_by_maintenance(kept, monkeypatch):
    monkeypatch.setattr(maintenance, "_DELTAS", 0)
    await kept.add(600)
    await maintain(kept.table, len(kept.vectors))
    at, question, index = await kept.pointer(), kept.question(), kept.index
    before = kept.exact(question, 50)
    await index.nearest(at, question, None, 50)
    for _ in range(2):
        await kept.delete(0.5)
        await maintain(kept.table, len(kept.vectors), timedelta(hours=1))
    for reader in (index, kept.index):
        hits = await reader.nearest(at, question, None, 50)
        assert [passage.chunk_id for passage in await reader.passages(at, hits)] == before
        assert len(await reader.matching(at, "text", None, 50)) == 50


async def test_while_more_is_waiting_a_share_of_the_table_may_go_without_an_index(kept, monkeypatch):
    monkeypatch.setattr(maintenance, "_UNINDEXED_ROWS", 10)
    await kept.add(500)
    await maintain(kept.table, 500)
    for busy, unindexed in ((True, 40), (True, 0), (False, 0)):
        await kept.add(40)
        await maintain(kept.table, len(kept.vectors), busy=busy)
        stats = await kept.table.index_stats("text_idx")
        assert stats.num_unindexed_rows == unindexed


async def test_texts_without_any_meaning_do_not_stop_the_others(kept):
    await kept.add(300)
    table = await kept.database.create_table("nothing-v1", schema=_schema(pa.float16()))
    rows = await kept.table.query().to_arrow()
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(300 * DIMENSIONS, np.float16)), DIMENSIONS)
    await table.add(rows.set_column(rows.schema.get_field_index("vector"), rows.schema.field("vector"), zeros))
    await maintain(table, 300)
    at = IndexPointer(table="nothing-v1", table_version=await table.version(), chunks=300, embedding=EMBEDDING)
    assert await kept.index.nearest(at, kept.question(), None, 5) == []
    assert len(await kept.index.matching(at, "text", None, 5)) == 5


async def test_a_question_without_any_meaning_finds_nothing_by_it(kept):
    await kept.add(300)
    await maintain(kept.table, 300)
    assert await kept.index.nearest(await kept.pointer(), np.zeros(DIMENSIONS, np.float32), None, 5) == []


async def test_cosines_are_those_of_the_rows_that_were_asked_for(kept):
    await kept.add(600)
    await maintain(kept.table, 600)
    at, question = await kept.pointer(), kept.question()
    hits = (await kept.index.nearest(at, question, None, 600))[::100]
    cosines = await kept.index.cosines(at, question, [hit.row for hit in hits])
    assert cosines == pytest.approx({hit.row: hit.score for hit in hits}, abs=1e-3)
    passages = await kept.index.passages(at, hits)
    own = [float(passage.vector @ question) / np.linalg.norm(passage.vector) for passage in passages]
    assert own == pytest.approx([hit.score for hit in hits], abs=1e-3)
