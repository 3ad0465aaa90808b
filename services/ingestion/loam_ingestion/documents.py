"""One document on its way to the index: fetched, parsed, and cut into chunks."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

from loam_ingestion.adapters.storage import Storage
from loam_ingestion.chunking import Chunk, chunk
from loam_ingestion.errors import SourceError
from loam_ingestion.parsing.pool import Parsed, Parsers
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

    def __init__(self, settings: Settings, storage: Storage, parsers: Parsers) -> None:
        self._settings = settings
        self._storage = storage
        self._parsers = parsers
        self._slots = asyncio.Semaphore(settings.downloads_at_once)

    async def read(self, job: Job, chunkings: Iterable[Chunking]) -> Document:
        """Raises SourceError, StorageError and UnreadableDocumentError."""
        name = job.name or job.source_key or job.document_id or ""
        async with self._slots:
            began = time.monotonic()
            async with self._fetched(job) as file:
                parsed = await self._parsers.parse(name, job.media_type, file)
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

    @asynccontextmanager
    async def _fetched(self, job: Job) -> AsyncIterator[BinaryIO]:
        limit = self._settings.document_bytes
        if job.raw_key:
            where = self._settings.storage_bucket, job.raw_key
        elif job.source_bucket and job.source_key:
            where = job.source_bucket, job.source_key
        elif job.source_key:
            with configmap.opened(job.source_key, self._settings.sources_dir) as entry:
                yield entry
            return
        else:
            raise SourceError("the job does not say where the document lies", passing=False)
        async with self._storage.download(*where, limit) as file:
            yield file


def _cut(parsed: Parsed, chunkings: Iterable[Chunking]) -> dict[Chunking, tuple[Chunk, ...]]:
    return {chunking: tuple(chunk(parsed.extracted, chunking)) for chunking in chunkings}
