"""The gateway's internal listener, as pods in tenants' namespaces call it.

| call | credential | answer |
|---|---|---|
| ``GET /internal/v1/jwks`` | none | the keys that caller tokens are signed with |
| ``POST /internal/v1/chat/completions``, ``/internal/v1/embeddings`` | caller token or workload key | as public |
| ``POST /internal/v1/pipelines/{name}/work/claim`` Claim | workload key | Work, or 204 when nothing came in time |
| ``POST …/work/renew`` Renew | workload key | 204, or 409 when the lease is lost |
| ``POST …/work/register`` Register | workload key | Registered |
| ``POST …/work/inventory`` Renew | workload key | Inventory |
| ``POST …/work/commit`` Commit | workload key | 204, or 409 when the lease is lost |

A pipeline's index has one writer: claiming work takes the pipeline's lease under a new epoch, and only the newest
epoch may commit. A commit moves the heads of the index versions and the documents' states in one transaction, so a
worker that died half-way left nothing that counts. Readers are told of a head once it is published: at once for
uploads, at the end of a sync for everything that the sync found.

A pipeline has a version of its index that serves and, after a change of its recipe, one that is being built beside it.
Both are targets of every change; a `Build` brings a document into the second only, and a `Check` judges whether it may
take the first one's place.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from loam_shared.contracts import Wire

# What the ledger's tables hold: PostgreSQL's bigint and integer.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[int, Field(ge=0, lt=2**31)]


class Chunking(Wire):
    """How documents are cut; sizes in tokens as ingestion counts them."""

    strategy: Literal["Recursive", "Markdown", "Sentence"]
    max_tokens: int = Field(ge=1)
    overlap_tokens: int = Field(ge=0)


DEFAULT_CHUNKING = Chunking(strategy="Recursive", max_tokens=256, overlap_tokens=32)
"""What a manifest gets that does not say; the best of those measured (docs/guides/evaluation.md)."""


class Embedding(Wire):
    """The model, by the name callers use at the gateway, and the length of its vectors."""

    model: str
    dimensions: int = Field(ge=1)


class Recipe(Wire):
    """What an index version is made by; another recipe needs another version."""

    chunking: Chunking
    embedding: Embedding


class IndexPointer(Wire):
    """The table and the version of it that counts; whatever lies beyond it in S3 was never committed.

    `embedding` is what the table's vectors come from: a question is embedded by it, whatever the manifest says now.
    """

    table: str
    table_version: Count
    chunks: Count
    index_version: Number = 1
    embedding: Embedding


class Target(Wire):
    """An index version to write to, from its `head` on (None while it is empty).

    `readable` is the oldest version of its table that a reader may still have been told of. One that is `chosen` was
    asked for by a user and takes over once it is complete; any other one being built has to be as good, too.
    """

    index_version: Number
    recipe: Recipe
    serving: bool
    chosen: bool = False
    head: IndexPointer | None = None
    readable: Count | None = None


class Job(Wire):
    """One thing to do for one document (Ingest, Remove; Build: into the version being built only) or for the pipeline.

    Of the latter there are a look at the sources (Sync) and the judgement of the version being built (Check).

    `raw_key` is the object, within the tenant's bucket, that holds the document's bytes; for a document of a source
    bucket `source_bucket` and `source_key` say where it lies instead.
    """

    id: str
    kind: Literal["Ingest", "Remove", "Build", "Sync", "Check"]
    document_id: str | None = None
    name: str | None = None
    media_type: str | None = None
    raw_key: str | None = None
    source_bucket: str | None = None
    source_key: str | None = None
    attempt: int = 1


class Claim(Wire):
    """Ask for work; the call waits up to `wait_seconds` for some.

    The documents of one batch have at most `max_bytes` together, or it is a single one.
    """

    worker: str
    wait_seconds: float = Field(default=20, ge=0, le=30)
    max_jobs: int = Field(default=16, ge=1, le=256)
    max_bytes: int = Field(default=64 * 2**20, ge=0)


class Work(Wire):
    """Jobs under a lease that lasts `lease_seconds` unless renewed, and the index versions that they concern.

    `sources` are those of the manifest, as it is now; the recipes are the targets' own, whatever the manifest says now.
    """

    epoch: int
    lease_seconds: float
    targets: tuple[Target, ...]
    sources: tuple[dict[str, Any], ...] = ()
    jobs: tuple[Job, ...]


class Renew(Wire):
    """Keep the lease while a batch takes its time; or ask something under it."""

    epoch: int


class Inventory(Wire):
    """The documents that the version being built has to hold, and no others."""

    documents: tuple[str, ...]


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
    """How one job ended. A failed one says why in words; `retry` asks for another attempt later.

    `unbuilt` says that the document is in the serving version but could not be brought into the one being built; the
    `error` is about that then.
    """

    job_id: str
    state: Literal["Done", "Failed"]
    pages: Number | None = None
    chunks: Number | None = None
    title: str | None = None
    error: str | None = None
    retry: bool = False
    unbuilt: bool = False
    parse_seconds: float | None = None
    embed_seconds: float | None = None


class Commit(Wire):
    """The end of a batch: the targets' heads as they are now (of those that were written), and what became of each job.

    `release` gives the lease back.
    """

    epoch: int
    heads: tuple[IndexPointer, ...] = ()
    results: tuple[JobResult, ...]
    release: bool = True


class DocumentState(Wire):
    """A document as the public API shows it.

    `version` counts its contents. It is Ready once it can be found, with the times that its last ingestion took.
    """

    document_id: str
    name: str
    source: str
    status: Literal["Pending", "Processing", "Ready", "Failed", "Removing"]
    size: int
    version: int = 1
    title: str | None = None
    pages: int | None = None
    chunks: int | None = None
    error: str | None = None
    parse_seconds: float | None = None
    embed_seconds: float | None = None
    created_at: datetime
    updated_at: datetime
    indexed_at: datetime | None = None
