"""One document on its way to the index: fetched, parsed, and cut into chunks."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loam_ingestion.adapters.storage import Storage
from loam_ingestion.chunking import Chunk, chunk
from loam_ingestion.errors import SourceError
from loam_ingestion.parsing.sandbox import Parsed, parse
from loam_ingestion.settings import Settings
from loam_ingestion.sources import configmap
from loam_shared.contracts.internal import Chunking, Job


@dataclass(frozen=True)
class Document:
    """A document that was read, cut in each of the ways that were asked for."""

    document_id: str
    name: str
    media_type: str
    title: str | None
    pages: int | None
    chunks: Mapping[Chunking, tuple[Chunk, ...]]
    seconds: float


class Reader:
    """Reads documents, a few at the same time."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._slots = asyncio.Semaphore(settings.documents_at_once)

    async def read(self, job: Job, chunkings: Iterable[Chunking]) -> Document:
        """Raises SourceError, StorageError and UnreadableDocumentError."""
        name = job.name or job.source_key or job.document_id or ""
        async with self._slots:
            began = time.monotonic()
            data = await self._fetch(job)
            parsed = await parse(name, job.media_type, data, self._settings.parsing)
            chunks = await asyncio.to_thread(_cut, parsed, frozenset(chunkings))
        return Document(
            document_id=job.document_id or "",
            name=name,
            media_type=parsed.media_type,
            title=parsed.extracted.title,
            pages=len(parsed.extracted.page_starts) or None,
            chunks=chunks,
            seconds=time.monotonic() - began,
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


def _cut(parsed: Parsed, chunkings: Iterable[Chunking]) -> dict[Chunking, tuple[Chunk, ...]]:
    return {chunking: tuple(chunk(parsed.extracted, chunking)) for chunking in chunkings}
