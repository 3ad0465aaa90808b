"""The index in S3: what the pointer names is complete and nobody else's, whoever else writes."""

import time
import uuid
from datetime import timedelta

import lancedb
import numpy as np
import pytest

from loam_ingestion.adapters import index as indexes
from loam_ingestion.adapters import maintenance
from loam_ingestion.adapters.index import Index, Row, Rows, open_index
from loam_ingestion.errors import IndexMismatchError, IndexMovedError, IndexUnavailableError
from loam_shared.contracts.internal import Chunking, Embedding, IndexPointer, Recipe, Target
from loam_shared.index import storage_options

EMBEDDING = Embedding(model="titan-embed", dimensions=8)
CHUNKING = Chunking(strategy="Recursive", max_tokens=400, overlap_tokens=40)
pytestmark = pytest.mark.usefixtures("aws")


@pytest.fixture
def uri() -> str:
    """A database of its own for each test."""
    return f"s3://loam-index/tenants/{uuid.uuid4().hex}/index"


async def _open(uri: str) -> Index:
    return await open_index(uri, "handbook")


def _at(head: IndexPointer | None, embedding: Embedding = EMBEDDING, readable: int | None = None) -> Target:
    """The version to write to, as the gateway tells of it."""
    recipe = Recipe(chunking=CHUNKING, embedding=embedding)
    return Target(index_version=1, recipe=recipe, serving=True, head=head, readable=readable)


def _rows(document: str, *texts: str) -> Rows:
    rows = tuple(
        Row(
            f"{document}-{ordinal}", document, text, f"{document}.md", "text/plain", None, 0, 1, ordinal, f"hash {text}"
        )
        for ordinal, text in enumerate(texts)
    )
    vectors = np.array([np.full(8, len(text), np.float32) for text in texts]) if texts else None
    return Rows(rows, vectors)


async def _served(uri: str, pointer: IndexPointer) -> list[str]:
    """The chunks that a reader of the pointer's version sees."""
    database = await lancedb.connect_async(uri, storage_options=storage_options())
    table = await database.open_table(pointer.table, version=pointer.table_version)
    return sorted((await table.query().select(["chunk_id"]).to_arrow())["chunk_id"].to_pylist())


async def test_a_documents_chunks_are_replaced_as_a_whole_and_a_removed_one_is_gone(uri):
    index = await _open(uri)
    first = await index.replace(_at(None), {"a": _rows("a", "one", "two", "three"), "b": _rows("b", "four")})
    assert (first.table, first.index_version, first.chunks) == ("handbook-v1", 1, 4)
    second = await index.replace(_at(first), {"a": _rows("a", "five"), "b": _rows("b")})
    assert await _served(uri, second) == ["a-0"]
    assert second.chunks == 1


async def test_a_reader_of_an_older_pointer_keeps_reading_its_version(uri):
    index = await _open(uri)
    first = await index.replace(_at(None), {"a": _rows("a", "one", "two")})
    await index.replace(_at(first), {"a": _rows("a"), "b": _rows("b", "three")})
    assert await _served(uri, first) == ["a-0", "a-1"]


async def test_what_a_dead_worker_left_uncommitted_does_not_count(uri):
    index = await _open(uri)
    first = await index.replace(_at(None), {"a": _rows("a", "one")})
    await index.replace(_at(first), {"a": _rows("a"), "lost": _rows("lost", "never committed")})
    third = await (await _open(uri)).replace(_at(first), {"b": _rows("b", "two")})
    assert await _served(uri, third) == ["a-0", "b-0"]


async def test_an_uncommitted_first_version_does_not_count(uri):
    index = await _open(uri)
    await index.replace(_at(None), {"lost": _rows("lost", "never committed")})
    pointer = await index.replace(_at(None), {"a": _rows("a", "one")})
    assert await _served(uri, pointer) == ["a-0"]


@pytest.mark.parametrize("step", ["delete", "add", "optimize", "create_index"])
async def test_a_write_of_somebody_without_the_lease_never_gets_into_a_version_that_counts(uri, step, monkeypatch):
    """A worker that lost its lease without noticing writes right after each step of ours, once."""
    monkeypatch.setattr(maintenance, "_UNINDEXED_ROWS", 0)
    index = await _open(uri)
    pointer = await index.replace(_at(None), {"a": _rows("a", "one"), "b": _rows("b", "two")})
    if step == "create_index":
        pointer = await index.replace(_at(pointer), {"a": _rows("a"), "b": _rows("b")})
        table = await (await lancedb.connect_async(uri, storage_options=storage_options())).open_table(pointer.table)
        await table.drop_index("text_idx")
        pointer = pointer.model_copy(update={"table_version": await table.version()})
    theirs = await lancedb.connect_async(uri, storage_options=storage_options())
    original = getattr(indexes.AsyncTable, step)
    intrusions = []

    async def intruded(self, *args, **options):
        result = await original(self, *args, **options)
        if not intrusions:
            intrusions.append(step)
            table = await theirs.open_table(self.name)
            await original_add(table, indexes._to_arrow({"x": _rows("x", "foreign")}, indexes._schema(EMBEDDING)))
        return result

    original_add = indexes.AsyncTable.add
    monkeypatch.setattr(indexes.AsyncTable, step, intruded)
    written = await index.replace(_at(pointer), {"c": _rows("c", "three")})
    assert intrusions == [step]
    expected = ["c-0"] if step == "create_index" else ["a-0", "b-0", "c-0"]
    assert await _served(uri, written) == expected
    assert written.chunks == len(expected)


async def test_a_writer_that_is_disturbed_again_and_again_gives_up(uri, monkeypatch):
    index = await _open(uri)
    pointer = await index.replace(_at(None), {"a": _rows("a", "one")})
    theirs = await lancedb.connect_async(uri, storage_options=storage_options())
    original = indexes.AsyncTable.delete

    async def disturbed(self, where):
        await original(await theirs.open_table(self.name), "document_id = 'x'")
        return await original(self, where)

    monkeypatch.setattr(indexes.AsyncTable, "delete", disturbed)
    with pytest.raises(IndexMovedError):
        await index.replace(_at(pointer), {"b": _rows("b", "two")})


async def test_vectors_of_known_texts_are_found_at_the_pointers_version_only(uri):
    index = await _open(uri)
    first = await index.replace(_at(None), {"a": _rows("a", "one")})
    await index.replace(_at(first), {"b": _rows("b", "four")})
    known = await index.known_vectors(_at(first), ["hash one", "hash four", "hash ' OR 1=1"])
    assert {key: vector.tolist() for key, vector in known.items()} == {"hash one": [3.0] * 8}


@pytest.mark.parametrize(
    "other", [Embedding(model="other", dimensions=8), Embedding(model="titan-embed", dimensions=4)]
)
async def test_vectors_of_two_models_never_mix(uri, other):
    pointer = await (await _open(uri)).replace(_at(None), {"a": _rows("a", "one")})
    with pytest.raises(IndexMismatchError, match="titan-embed"):
        await (await _open(uri)).replace(_at(pointer, other), {"b": _rows("b", "two")})


async def test_a_pointer_to_what_is_not_there_is_told_as_unavailable(uri):
    pointer = IndexPointer(table="handbook-v1", table_version=7, chunks=1, embedding=EMBEDDING)
    with pytest.raises(IndexUnavailableError):
        await (await _open(uri)).replace(_at(pointer), {"a": _rows("a", "one")})


async def test_old_versions_are_deleted_but_never_one_that_may_be_read(uri, monkeypatch):
    monkeypatch.setattr(indexes, "_PRUNING_MARGIN", timedelta(seconds=1))
    monkeypatch.setattr(indexes, "_PRUNE_EVERY_SECONDS", 0)
    index = await _open(uri)
    pointers = [await index.replace(_at(None), {"a": _rows("a", "0")})]
    began = time.monotonic()
    while time.monotonic() < began + 3:
        # Readers may be at the version before the head: it was the one that counts until a moment ago.
        target = _at(pointers[-1], readable=pointers[-2:][0].table_version)
        pointers.append(await index.replace(target, {"a": _rows("a", str(len(pointers)))}))
        assert await _served(uri, pointers[-3:][0]) == ["a-0"]
    assert await _served(uri, pointers[-1]) == ["a-0"]
    with pytest.raises(ValueError, match="no longer exists"):
        await _served(uri, pointers[0])


async def test_one_version_of_the_index_is_built_while_another_serves(uri):
    index = await _open(uri)
    served = await index.replace(_at(None), {"a": _rows("a", "one")})
    second = _at(None).model_copy(update={"index_version": 2, "serving": False})
    built = await index.replace(second, {"a": _rows("a", "one", "two"), "b": _rows("b", "three")})
    assert (built.table, built.index_version, built.chunks) == ("handbook-v2", 2, 3)
    assert await _served(uri, served) == ["a-0"]
    assert await index.document_ids(second.model_copy(update={"head": built})) == {"a", "b"}
