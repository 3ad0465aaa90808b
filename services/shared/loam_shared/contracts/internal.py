"""The gateway's internal listener, as pods in tenants' namespaces call it.

| call | credential | answer |
|---|---|---|
| ``GET /internal/v1/jwks`` | none | the keys that caller tokens are signed with |
| ``POST /internal/v1/chat/completions``, ``/internal/v1/embeddings`` | caller token or workload key | as public |
| ``POST /internal/v1/pipelines/{name}/work/claim`` Claim | workload key | Work, or 204 when nothing came in time |
| ``POST …/work/renew`` Renew | workload key | 204, or 409 when the lease is lost |
| ``POST …/work/register`` Register | workload key | Registered |
| ``POST …/work/commit`` Commit | workload key | 204, or 409 when the lease is lost |

A pipeline's index has one writer: claiming work takes the pipeline's lease under a new epoch, and only the newest
epoch may commit. A commit moves the index pointer and the documents' states in one transaction, so a reader sees all
of a batch or nothing of it, and a worker that died half-way left nothing that counts.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from loam_shared.contracts import Wire

# What the ledger's tables hold: PostgreSQL's bigint and integer.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[int, Field(ge=0, lt=2**31)]


class Embedding(Wire):
    """The model, by the name callers use at the gateway, and the length of its vectors."""

    model: str
    dimensions: int = Field(ge=1)


class IndexPointer(Wire):
    """The table and the version of it that counts; whatever lies beyond it in S3 was never committed.

    `embedding` is what the table's vectors come from: a question is embedded by it, whatever the manifest says now.
    """

    table: str
    table_version: Count
    chunks: Count
    index_version: Number = 1
    embedding: Embedding | None = None


class Job(Wire):
    """One thing to do for one document (Ingest, Remove), or a look at the sources (Sync).

    `raw_key` is the object, within the tenant's bucket, that holds the document's bytes; for a document of a source
    bucket `source_bucket` and `source_key` say where it lies instead.
    """

    id: str
    kind: Literal["Ingest", "Remove", "Sync"]
    document_id: str | None = None
    name: str | None = None
    media_type: str | None = None
    raw_key: str | None = None
    source_bucket: str | None = None
    source_key: str | None = None
    attempt: int = 1


class Claim(Wire):
    """Ask for work; the call waits up to `wait_seconds` for some."""

    worker: str
    wait_seconds: float = Field(default=20, ge=0, le=30)
    max_jobs: int = Field(default=16, ge=1, le=256)


class Work(Wire):
    """Jobs under a lease that lasts `lease_seconds` unless renewed. `index` is None before the first commit."""

    epoch: int
    lease_seconds: float
    index: IndexPointer | None = None
    jobs: tuple[Job, ...]


class Renew(Wire):
    """Keep the lease while a batch takes its time."""

    epoch: int


class SourceDocument(Wire):
    """A document seen at a source; `etag` changes when its content does."""

    source: Literal["S3", "ConfigMap"]
    bucket: str | None = None
    key: str
    etag: str
    size: Count


class Register(Wire):
    """What a Sync job found: the whole listing of every source. The gateway compares and queues the differences."""

    epoch: int
    job_id: str
    documents: tuple[SourceDocument, ...]


class Registered(Wire):
    """How many documents the comparison queued."""

    added: int
    changed: int
    removed: int
    unchanged: int


class JobResult(Wire):
    """How one job ended. A failed one says why in words; `retry` asks for another attempt later."""

    job_id: str
    state: Literal["Done", "Failed"]
    pages: Number | None = None
    chunks: Number | None = None
    title: str | None = None
    error: str | None = None
    retry: bool = False
    parse_seconds: float | None = None
    embed_seconds: float | None = None


class Commit(Wire):
    """The end of a batch: the index as it is now, what became of each job, and whether the lease is given back."""

    epoch: int
    index: IndexPointer | None = None
    results: tuple[JobResult, ...]
    release: bool = True


class DocumentState(Wire):
    """A document as the public API shows it."""

    document_id: str
    name: str
    source: str
    status: Literal["Pending", "Processing", "Ready", "Failed", "Removing"]
    size: int
    pages: int | None = None
    chunks: int | None = None
    error: str | None = None
    created_at: datetime
    updated_at: datetime
