"""One batch of jobs, from claim to commit."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog

from loam_ingestion.adapters.gateway import Gateway
from loam_ingestion.adapters.index import Index, Row, Rows
from loam_ingestion.adapters.storage import Storage
from loam_ingestion.check import Check
from loam_ingestion.documents import Document, Reader
from loam_ingestion.errors import IngestionError, UnreadableDocumentError
from loam_ingestion.parsing.pool import Parsers
from loam_ingestion.pipeline import Source
from loam_ingestion.settings import Settings
from loam_ingestion.sources import configmap, s3
from loam_ingestion.vectors import Embedder, Vectors
from loam_shared.contracts.internal import (
    Commit,
    Embedding,
    IndexPointer,
    Job,
    JobResult,
    Register,
    SourceDocument,
    Target,
    Work,
)

_log = structlog.get_logger()
# Documents that are read before the first of them are embedded.
_JOBS_AT_ONCE = 64


@dataclass
class Progress:
    """What became of a batch's jobs so far. `removed` are documents that shall have no rows."""

    documents: dict[str, tuple[Job, Document]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    results: dict[str, JobResult] = field(default_factory=dict)
    heads: list[IndexPointer] = field(default_factory=list)
    vectors: dict[Embedding, Vectors] = field(default_factory=dict)
    embed_seconds: float = 0.0

    def fail(self, job: Job, error: IngestionError, *, unbuilt: bool = False) -> None:
        """Say why a job came to nothing, or (`unbuilt`) only to a part."""
        _log.warning("job failed", job=job.id, document=job.document_id, kind=type(error).__name__, retry=error.passing)
        before = self.results.get(job.id)
        if unbuilt and before is not None:
            self.results[job.id] = before.model_copy(update={"unbuilt": True, "error": str(error)})
            return
        unreadable = isinstance(error, UnreadableDocumentError) and job.kind == "Ingest"
        self.results[job.id] = JobResult(
            job_id=job.id, state="Failed", error=str(error), retry=error.passing, chunks=0 if unreadable else None
        )
        if unreadable and job.document_id:
            # What the document says now cannot be known, and what it said before is no longer so.
            self.removed.add(job.document_id)


class Batches:
    """Does the jobs of one claim and commits them together."""

    def __init__(self, settings: Settings, gateway: Gateway, storage: Storage, index: Index, parsers: Parsers) -> None:
        self._settings = settings
        self._gateway = gateway
        self._storage = storage
        self._index = index
        self._reader = Reader(settings, storage, parsers)
        self._embedder = Embedder(gateway, settings.embeddings_at_once)
        self._embedding = asyncio.Lock()
        self._check = Check(gateway, index, self._embedder)

    async def run(self, work: Work) -> tuple[JobResult, ...]:
        """Do `work` and commit it; when it raises LeaseLostError or IngestionError, nothing of it counts."""
        progress = Progress()
        await self._prepare(work, progress)
        for target in work.targets:
            head = await self._fill(target, progress, busy=len(work.jobs) >= self._settings.jobs_per_batch)
            progress.heads += [head] if head else []
        results = tuple(progress.results.values())
        await self._gateway.commit(Commit(epoch=work.epoch, heads=tuple(progress.heads), results=results))
        return results

    async def _prepare(self, work: Work, progress: Progress) -> None:
        """Read and embed all documents: while some are embedded, the next are read already."""
        async with asyncio.TaskGroup() as embedding:
            for start in range(0, len(work.jobs), _JOBS_AT_ONCE):
                jobs = work.jobs[start : start + _JOBS_AT_ONCE]
                async with asyncio.TaskGroup() as reading:
                    for job in jobs:
                        reading.create_task(self._begin(job, work, progress))
                documents = [progress.documents[job.id][1] for job in jobs if job.id in progress.documents]
                embedding.create_task(self._embed(work.targets, documents, progress))

    async def _begin(self, job: Job, work: Work, progress: Progress) -> None:
        """Whatever comes before the index is written."""
        try:
            if job.kind == "Sync":
                progress.results[job.id] = await self._sync(job, work)
            elif job.kind == "Check":
                head, progress.results[job.id] = await self._check.run(job, work)
                progress.heads += [head] if head else []
            elif job.kind == "Remove":
                progress.removed.add(job.document_id or "")
                progress.results[job.id] = JobResult(job_id=job.id, state="Done", chunks=0)
            else:
                wanted = {target.recipe.chunking for target in _targets(job, work.targets)}
                progress.documents[job.id] = job, await self._reader.read(job, wanted)
        except IngestionError as error:
            progress.fail(job, error)

    async def _sync(self, job: Job, work: Work) -> JobResult:
        found: list[SourceDocument] = []
        # All or nothing: half a listing would make the gateway remove the other half's documents.
        for source in map(Source.model_validate, work.sources):
            if source.s3:
                found += await s3.listing(source.s3, self._storage)
            if source.config_map:
                found += configmap.listing(source.config_map, self._settings.sources_dir)
        registered = await self._gateway.register(Register(epoch=work.epoch, job_id=job.id, documents=tuple(found)))
        _log.info("sources compared", **registered.model_dump())
        return JobResult(job_id=job.id, state="Done")

    async def _embed(self, targets: Sequence[Target], documents: Sequence[Document], progress: Progress) -> None:
        """A vector for every chunk, of which equal ones are embedded once and never again."""
        # One call after the other, so that each knows what those before it have embedded.
        async with self._embedding:
            began = time.monotonic()
            for target in targets:
                chunking = target.recipe.chunking
                chunks = [chunk for document in documents for chunk in document.chunks.get(chunking, ())]
                vectors = progress.vectors.setdefault(target.recipe.embedding, Vectors())
                texts = {one.content_hash: one.text for one in chunks if one.content_hash not in vectors.by_hash}
                # Another chunking leaves many chunks as they are; their vectors lie in the version that serves.
                for other in (one for one in targets if one.recipe.embedding == target.recipe.embedding):
                    unknown = [one for one in texts if one not in vectors.by_hash]
                    vectors.by_hash |= await self._index.known_vectors(other, unknown)
                missing = {one: text for one, text in texts.items() if one not in vectors.by_hash}
                made = await self._embedder.embed(missing, target.recipe.embedding)
                vectors.by_hash |= made.by_hash
                vectors.failed |= made.failed
            progress.embed_seconds += time.monotonic() - began

    async def _fill(self, target: Target, progress: Progress, *, busy: bool) -> IndexPointer | None:
        """Bring the batch's documents into one target, `busy` if more wait. The serving one decides how a job ended."""
        changes = dict.fromkeys(progress.removed, Rows())
        vectors = progress.vectors.get(target.recipe.embedding, Vectors())
        share = progress.embed_seconds / max(1, len(progress.documents))
        for job, document in _concerned(target, progress):
            rows = _rows(document, target, vectors)
            if isinstance(rows, IngestionError):
                progress.fail(job, rows, unbuilt=not target.serving)
                if not target.serving:
                    changes[document.document_id] = Rows()
                continue
            changes[document.document_id] = rows
            if target.serving or job.kind == "Build":
                progress.results[job.id] = _done(job, document, rows, share)
        if not changes or (target.head is None and not any(rows.rows for rows in changes.values())):
            return None
        return await self._index.replace(target, changes, busy=busy)


def _targets(job: Job, targets: Sequence[Target]) -> Iterable[Target]:
    return (target for target in targets if not (job.kind == "Build" and target.serving))


def _concerned(target: Target, progress: Progress) -> list[tuple[Job, Document]]:
    """The documents to bring into a target: the serving one takes no builds, the other only what the first has."""
    return [
        (job, document)
        for job, document in progress.documents.values()
        if (job.kind == "Ingest" if target.serving else job.kind == "Build" or _is_done(progress, job))
    ]


def _is_done(progress: Progress, job: Job) -> bool:
    result = progress.results.get(job.id)
    return result is not None and result.state == "Done"


def _done(job: Job, document: Document, rows: Rows, embed_seconds: float) -> JobResult:
    return JobResult(
        job_id=job.id,
        state="Done",
        pages=document.pages,
        chunks=len(rows.rows),
        title=document.title,
        parse_seconds=round(document.seconds, 3),
        embed_seconds=round(embed_seconds, 3),
    )


def _rows(document: Document, target: Target, vectors: Vectors) -> Rows | IngestionError:
    chunks = document.chunks[target.recipe.chunking]
    hashes = [found.content_hash for found in chunks]
    if failure := vectors.failure(hashes):
        return failure
    rows = tuple(
        Row(
            chunk_id=f"{document.document_id}-{found.ordinal}",
            document_id=document.document_id,
            text=found.text,
            source=document.name,
            media_type=document.media_type,
            page=found.page,
            start=found.start,
            end=found.end,
            ordinal=found.ordinal,
            content_hash=content_hash,
        )
        for found, content_hash in zip(chunks, hashes, strict=True)
    )
    return Rows(rows, np.stack([vectors.by_hash[one] for one in hashes]) if hashes else None)
