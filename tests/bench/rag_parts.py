"""What the benchmark of search and ingestion knows of the insides of both: writing a table, reading it, parts alone."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from loam_bedrock_local.embedder import Embedder as LocalEmbedder
from loam_bedrock_local.embedder import normalize, widen
from loam_ingestion.adapters.gateway import Gateway
from loam_ingestion.adapters.index import Row, Rows, open_index
from loam_ingestion.chunking import chunk
from loam_ingestion.parsing.pool import Parsers, parsers
from loam_ingestion.settings import ParsingLimits
from loam_ingestion.settings import Settings as WorkerSettings
from loam_ingestion.vectors import Embedder
from loam_retrieval.adapters.databases import Databases
from loam_retrieval.adapters.index import Index
from loam_retrieval.pipeline import Pipeline
from loam_retrieval.question import Question
from loam_retrieval.search import Search
from loam_retrieval.settings import Settings
from loam_shared.contracts.admin import StorageGrant
from loam_shared.contracts.internal import Chunking, Embedding, IndexPointer, Recipe, Target
from loam_shared.contracts.retrieval import Usage

from ..services.ingestion import _rag

Vectors = NDArray[np.float32]
CHUNKING = Chunking(strategy="Recursive", max_tokens=400, overlap_tokens=40)
EMBEDDING = Embedding(model="titan-embed", dimensions=512)
SPEC = _rag.SPEC | {
    "chunking": {"strategy": "Recursive", "maxTokens": 400, "overlapTokens": 40},
    "embedding": {"model": EMBEDDING.model, "dimensions": EMBEDDING.dimensions},
}
BATCH = WorkerSettings.model_fields["jobs_per_batch"].default
_PARSED_AT_ONCE = WorkerSettings.model_fields["documents_at_once"].default
_EMBEDDED_AT_ONCE = WorkerSettings.model_fields["embeddings_at_once"].default
# A document is so many chunks.
_DOCUMENT = 10
_ROWS_PER_COMMIT = 5_000


def embedded(texts: Sequence[str]) -> Vectors:
    """A vector of each text, as Bedrock's stand-in gives it."""
    embedder = LocalEmbedder()
    parts = [embedder.embed(list(texts[start : start + 1000])) for start in range(0, len(texts), 1000)]
    return widen(normalize(np.concatenate(parts)), EMBEDDING.dimensions)


async def parse_and_embed(pipeline: _rag.Pipeline, documents: Mapping[str, bytes]) -> float:
    """Seconds that parsing, chunking and embedding take by themselves, as a worker does them, batch by batch."""
    key = pipeline.folder / "key"
    async with aiohttp.ClientSession() as session, parsers(ParsingLimits(), _PARSED_AT_ONCE) as pool:
        gateway = Gateway(session, pipeline.platform.internal, key, pipeline.name)
        embedder, names = Embedder(gateway, _EMBEDDED_AT_ONCE), list(documents)
        await _texts(pool, {"warm-up.txt": b"A text."})
        began = time.perf_counter()
        for start in range(0, len(names), BATCH):
            texts = await _texts(pool, {name: documents[name] for name in names[start : start + BATCH]})
            vectors = await embedder.embed(texts, EMBEDDING)
            assert len(vectors.by_hash) == len(texts)
        return time.perf_counter() - began


async def _texts(pool: Parsers, documents: Mapping[str, bytes]) -> dict[str, str]:
    async def read(name: str, content: bytes) -> dict[str, str]:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            parsed = await pool.parse(name, None, file)
        chunks = await asyncio.to_thread(chunk, parsed.extracted, CHUNKING)
        return {one.content_hash: one.text for one in chunks}

    found: dict[str, str] = {}
    for texts in await asyncio.gather(*(read(name, content) for name, content in documents.items())):
        found |= texts
    return found


@dataclass(frozen=True)
class Written:
    """A table as a worker wrote it, and what the rows' vectors are in an exact search: row number by chunk id."""

    pointer: IndexPointer
    vectors: Vectors
    seconds: float


async def write_table(uri: str, pipeline: str, texts: Sequence[str], vectors: Vectors) -> Written:
    """Write all texts, then write every hundredth document again, which takes it away and appends it."""
    index, pointer = await open_index(uri, pipeline), None
    began = time.perf_counter()
    for start in range(0, len(texts), _ROWS_PER_COMMIT):
        stop = min(start + _ROWS_PER_COMMIT, len(texts))
        pointer = await index.replace(_target(pointer), _documents(texts, vectors, start, stop), busy=True)
    seconds = time.perf_counter() - began
    again: dict[str, Rows] = {}
    for start in range(0, len(texts), 100 * _DOCUMENT):
        again |= _documents(texts, vectors, start, min(start + _DOCUMENT, len(texts)))
    pointer = await index.replace(_target(pointer), again)
    return Written(pointer, vectors, seconds)


def _target(head: IndexPointer | None) -> Target:
    recipe = Recipe(chunking=CHUNKING, embedding=EMBEDDING)
    return Target(index_version=1, recipe=recipe, serving=True, head=head)


def _documents(texts: Sequence[str], vectors: Vectors, start: int, stop: int) -> dict[str, Rows]:
    def rows(first: int, last: int) -> Iterator[Row]:
        for number in range(first, last):
            document = f"d{number // _DOCUMENT}"
            place = number % _DOCUMENT
            yield Row(
                str(number), document, texts[number], f"{document}.txt", "text/plain", None, 0, 1, place, str(number)
            )

    starts = range(start, stop, _DOCUMENT)
    return {
        f"d{first // _DOCUMENT}": Rows(
            tuple(rows(first, min(first + _DOCUMENT, stop))), vectors[first : min(first + _DOCUMENT, stop)]
        )
        for first in starts
    }


class Known:
    """Stands where a search has the gateway embed its question: the vectors are known, and calls are not measured."""

    def __init__(self, vectors: Mapping[str, Vectors]) -> None:
        self._vectors = vectors

    async def embed(self, token: str, texts: Sequence[str], model: str, dimensions: int) -> tuple[list[Vectors], Usage]:
        return [self._vectors[text] for text in texts], Usage()


class Reader:
    """Searches in one table as a retrieval service does."""

    def __init__(self, index: Index, questions: Mapping[str, Vectors], mode: str) -> None:
        settings = Settings(gateway_url="http://127.0.0.1")
        spec = Pipeline.model_validate({"retrieval": {"mode": mode}})
        gateway: Any = Known(questions)
        self._search = Search(settings, spec, gateway, index)

    async def search(self, question: str, pointer: IndexPointer) -> int:
        """How many passages were found."""
        return len((await self._search("token", Question(question), pointer, {})).passages)


async def opened(grant: StorageGrant) -> Index:
    """A tenant's index as a process that has just started sees it, its caches as large as they are by default."""
    fields = Settings.model_fields
    databases = Databases(fields["index_cache_mib"].default, fields["metadata_cache_mib"].default)
    return await databases.index(grant)


async def nearest_ids(index: Index, pointer: IndexPointer, vector: Vectors, limit: int) -> list[int]:
    """The numbers of the texts that a search by meaning finds, best first."""
    passages = await index.passages(pointer, await index.nearest(pointer, vector, None, limit))
    return [int(passage.chunk_id) for passage in passages]
