"""Documents in an index of their own, cut, stored and searched by the very code that serves pipelines."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import cast

import lancedb

from loam_evaluation.embedders import Embedder, Vectors
from loam_evaluation.vectors import VectorCache
from loam_ingestion.adapters import index as writing
from loam_ingestion.chunking import Chunk, chunk
from loam_ingestion.parsing import Extracted
from loam_retrieval.adapters import index as reading
from loam_retrieval.adapters.gateway import Gateway
from loam_retrieval.adapters.index import Passage
from loam_retrieval.pipeline import Pipeline, Retrieval
from loam_retrieval.question import Question
from loam_retrieval.search import Search
from loam_retrieval.settings import Settings
from loam_shared.contracts.evaluation import Mode
from loam_shared.contracts.internal import DEFAULT_CHUNKING, Chunking, Embedding, IndexPointer, Recipe, Target
from loam_shared.contracts.retrieval import Usage

_NAME = "evaluation"
_DOCUMENTS_AT_ONCE = 2000


@dataclass(frozen=True)
class Library:
    """Searches; `chunks` counts what is indexed."""

    index: reading.Index
    pointer: IndexPointer
    embedder: Embedder

    async def search(self, text: str, mode: Mode, limit: int, candidates: int) -> list[Passage]:
        """The best `limit` passages out of `candidates` from each kind of search, as a pipeline would answer."""
        pipeline = Pipeline(retrieval=Retrieval(mode=mode, top_k=limit, candidates=candidates))
        # Of the gateway a search needs only that it embeds a question; here the model is at hand.
        gateway = cast(Gateway, _Here(self.embedder))
        search = Search(Settings.model_construct(), pipeline, gateway, self.index)
        return (await search("", Question(text), self.pointer, {})).passages


@dataclass(frozen=True)
class _Here:
    embedder: Embedder

    async def embed(
        self, _token: str, texts: Sequence[str], _model: str, _dimensions: int
    ) -> tuple[list[Vectors], Usage]:
        return [await self.embedder.query(text) for text in texts], Usage()


def cut(documents: Mapping[str, Extracted], chunking: Chunking | None) -> dict[str, list[Chunk]]:
    """The chunks of each document; without `chunking` each is left whole."""
    if chunking is None:
        return {name: _whole(extracted.text) for name, extracted in documents.items()}
    return {name: chunk(extracted, chunking) for name, extracted in documents.items()}


def _whole(text: str) -> list[Chunk]:
    return [Chunk(0, 0, len(text), text, None)] if text.strip() else []


@asynccontextmanager
async def library(
    chunks: Mapping[str, Sequence[Chunk]], embedder: Embedder, cache: VectorCache
) -> AsyncIterator[Library]:
    """An index of these documents' chunks in a temporary folder, gone afterwards."""
    vectors = await cache.passages([found.text for of_one in chunks.values() for found in of_one])
    with TemporaryDirectory(prefix="loam-eval-") as folder:
        pointer = await _written(folder, chunks, vectors, embedder)
        yield Library(reading.Index(await lancedb.connect_async(folder)), pointer, embedder)


async def _written(
    folder: str, chunks: Mapping[str, Sequence[Chunk]], vectors: Vectors, embedder: Embedder
) -> IndexPointer:
    index = await writing.open_index(folder, _NAME)
    embedding = Embedding(model=embedder.name, dimensions=vectors.shape[1])
    target = Target(index_version=1, recipe=Recipe(chunking=DEFAULT_CHUNKING, embedding=embedding), serving=True)
    batch: dict[str, writing.Rows] = {}
    first = 0
    for name, of_one in chunks.items():
        if of_one:
            batch[name] = writing.Rows(tuple(_row(name, one) for one in of_one), vectors[first : first + len(of_one)])
            first += len(of_one)
        if len(batch) == _DOCUMENTS_AT_ONCE:
            target, batch = target.model_copy(update={"head": await index.replace(target, batch)}), {}
    if batch or target.head is None:
        return await index.replace(target, batch)
    return target.head


def _row(name: str, one: Chunk) -> writing.Row:
    document_id = hashlib.sha256(name.encode()).hexdigest()[:32]
    return writing.Row(
        chunk_id=f"{document_id}-{one.ordinal}",
        document_id=name,
        text=one.text,
        source=name,
        media_type="text/markdown",
        page=one.page,
        start=one.start,
        end=one.end,
        ordinal=one.ordinal,
        content_hash=one.content_hash,
    )
