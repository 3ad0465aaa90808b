"""One batch of jobs, from claim to commit."""

import asyncio
from dataclasses import dataclass

import structlog

from loam_ingestion.adapters.gateway import Gateway
from loam_ingestion.adapters.index import Index, Rows
from loam_ingestion.adapters.storage import Storage
from loam_ingestion.documents import Preparation, Prepared
from loam_ingestion.errors import IngestionError, UnreadableDocumentError
from loam_ingestion.pipeline import Pipeline
from loam_ingestion.settings import Settings
from loam_ingestion.sources import configmap, s3
from loam_shared.contracts.internal import Commit, IndexPointer, Job, JobResult, Register, SourceDocument, Work

_log = structlog.get_logger()


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its result, and the rows its document shall have (None leaves what it has)."""

    job: Job
    result: JobResult
    rows: Rows | None = None


class Batches:
    """Does the jobs of one claim and commits them together."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, gateway: Gateway, storage: Storage, index: Index
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._gateway = gateway
        self._storage = storage
        self._index = index
        self._preparation = Preparation(settings, pipeline, gateway, storage, index)

    async def run(self, work: Work) -> tuple[JobResult, ...]:
        """Do `work` and commit it; when it raises LeaseLostError or IngestionError, nothing of it counts."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._do(job, work)) for job in work.jobs]
        outcomes = [task.result() for task in tasks]
        results = tuple(outcome.result for outcome in outcomes)
        # Where a batch has two jobs for one document, the later one says what becomes of it.
        changes = {outcome.job.document_id: outcome.rows for outcome in outcomes if outcome.rows is not None}
        pointer = await self._write(work.index, {name: rows for name, rows in changes.items() if name})
        await self._gateway.commit(Commit(epoch=work.epoch, index=pointer, results=results))
        return results

    async def _write(self, pointer: IndexPointer | None, changes: dict[str, Rows]) -> IndexPointer | None:
        if not changes or (pointer is None and not any(rows.rows for rows in changes.values())):
            return None
        return await self._index.replace(pointer, changes)

    async def _do(self, job: Job, work: Work) -> Outcome:
        try:
            if job.kind == "Sync":
                return await self._sync(job, work.epoch)
            if job.kind == "Remove":
                return Outcome(job, JobResult(job_id=job.id, state="Done", chunks=0), Rows())
            return _ingested(job, await self._preparation.prepare(job, work.index))
        except UnreadableDocumentError as error:
            # What the document says now cannot be known, and what it said before is no longer so.
            return Outcome(job, _failed(job, error), Rows())
        except IngestionError as error:
            return Outcome(job, _failed(job, error))

    async def _sync(self, job: Job, epoch: int) -> Outcome:
        found: list[SourceDocument] = []
        # All or nothing: half a listing would make the gateway remove the other half's documents.
        for source in self._pipeline.sources:
            if source.s3:
                found += await s3.listing(source.s3, self._storage)
            if source.config_map:
                found += configmap.listing(source.config_map, self._settings.sources_dir)
        registered = await self._gateway.register(Register(epoch=epoch, job_id=job.id, documents=tuple(found)))
        _log.info("sources compared", **registered.model_dump())
        return Outcome(job, JobResult(job_id=job.id, state="Done"))


def _ingested(job: Job, prepared: Prepared) -> Outcome:
    result = JobResult(
        job_id=job.id,
        state="Done",
        pages=prepared.pages,
        chunks=len(prepared.rows.rows),
        title=prepared.title,
        parse_seconds=round(prepared.parse_seconds, 3),
        embed_seconds=round(prepared.embed_seconds, 3),
    )
    return Outcome(job, result, prepared.rows)


def _failed(job: Job, error: IngestionError) -> JobResult:
    kind = type(error).__name__
    _log.warning("job failed", job=job.id, document=job.document_id, kind=kind, retry=error.passing)
    return JobResult(job_id=job.id, state="Failed", error=str(error), retry=error.passing)
