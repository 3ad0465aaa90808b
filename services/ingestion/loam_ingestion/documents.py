"""One document on its way into the index: fetched, parsed, chunked, embedded."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loam_ingestion.adapters.gateway import Gateway, Vectors
from loam_ingestion.adapters.index import Index, Row, Rows
from loam_ingestion.adapters.storage import Storage
from loam_ingestion.chunking import Chunk, chunk
from loam_ingestion.errors import SourceError
from loam_ingestion.parsing.sandbox import Parsed, parse
from loam_ingestion.pipeline import Pipeline
from loam_ingestion.settings import Settings
from loam_ingestion.sources import configmap
from loam_shared.contracts.internal import IndexPointer, Job

_TEXTS_PER_CALL = 64


@dataclass(frozen=True)
class Prepared:
    """A document ready for the index, and what its preparation showed."""

    rows: Rows
    title: str | None
    pages: int | None
    embedded: int
    parse_seconds: float
    embed_seconds: float


class Preparation:
    """Turns a job's document into rows of the index."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, gateway: Gateway, storage: Storage, index: Index
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._gateway = gateway
        self._storage = storage
        self._index = index
        self._parsers = asyncio.Semaphore(settings.documents_at_once)
        self._embedders = asyncio.Semaphore(settings.embeddings_at_once)

    async def prepare(self, job: Job, pointer: IndexPointer | None) -> Prepared:
        """Raises SourceError, StorageError, UnreadableDocumentError, GatewayError and IndexMismatchError."""
        name = job.name or job.source_key or job.document_id or ""
        async with self._parsers:
            began = time.monotonic()
            data = await self._fetch(job)
            parsed = await parse(name, job.media_type, data, self._settings.parsing)
            chunks = await asyncio.to_thread(chunk, parsed.extracted, self._pipeline.chunking)
            parse_seconds = time.monotonic() - began
        began = time.monotonic()
        vectors, embedded = await self._vectors(chunks, pointer)
        rows = _rows(job.document_id or "", name, parsed, chunks)
        pages = len(parsed.extracted.page_starts) or None
        return Prepared(
            Rows(rows, vectors), parsed.extracted.title, pages, embedded, parse_seconds, time.monotonic() - began
        )

    async def _fetch(self, job: Job) -> bytes:
        limit = self._settings.document_bytes
        if job.raw_key:
            return await self._storage.read(self._settings.storage_bucket, job.raw_key, limit)
        if job.source_bucket and job.source_key:
            return await self._storage.read(job.source_bucket, job.source_key, limit)
        if job.source_key:
            return configmap.read(job.source_key, self._settings.sources_dir)
        raise SourceError("the job does not say where the document lies", passing=False)

    async def _vectors(self, chunks: Sequence[Chunk], pointer: IndexPointer | None) -> tuple[Vectors, int]:
        """A vector per chunk, and how many had to be embedded: equal texts are embedded once and never again."""
        texts = {found.content_hash: found.text for found in chunks}
        known = await self._index.known_vectors(pointer, list(texts))
        missing = [content_hash for content_hash in texts if content_hash not in known]
        batches = [missing[start : start + _TEXTS_PER_CALL] for start in range(0, len(missing), _TEXTS_PER_CALL)]
        try:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(self._embed([texts[key] for key in batch])) for batch in batches]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        for batch, call in zip(batches, calls, strict=True):
            known |= dict(zip(batch, call.result(), strict=True))
        return np.stack([known[found.content_hash] for found in chunks]), len(missing)

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        embedding = self._pipeline.embedding
        async with self._embedders:
            return await self._gateway.embed(texts, embedding.model, embedding.dimensions)


def _rows(document_id: str, name: str, parsed: Parsed, chunks: Sequence[Chunk]) -> tuple[Row, ...]:
    return tuple(
        Row(
            chunk_id=f"{document_id}-{found.ordinal}",
            document_id=document_id,
            text=found.text,
            source=name,
            media_type=parsed.media_type,
            page=found.page,
            start=found.start,
            end=found.end,
            ordinal=found.ordinal,
            content_hash=found.content_hash,
        )
        for found in chunks
    )
