"""RagPipeline: documents in, answers with citations out."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from loam_operator.api.base import AGE, READY, REASON, Column, Definition, Node, Resource, Time
from loam_operator.api.rules import Rule, Unique, matching
from loam_operator.api.v1alpha1.common import BucketName, NamedRef, ObjectName, Resources, Status, exactly_one
from loam_operator.api.v1alpha1.cron import CRON
from loam_shared.contracts.internal import DEFAULT_CHUNKING

Schedule = Annotated[
    str,
    Field(min_length=1, max_length=120),
    matching(CRON, 'must be a cron schedule of five fields in UTC, such as "*/15 * * * *", or "@hourly" or "@daily"'),
]
Suffix = Annotated[
    str,
    Field(max_length=16),
    matching(r"^\.[a-z0-9]+$", 'must be a dot and lower-case letters or digits, such as ".pdf"'),
]
Temperature = Annotated[
    str,
    Field(max_length=8),
    matching(r"^(0(\.[0-9]{1,3})?|1(\.0{1,3})?)$", 'must be a decimal string from "0" to "1", such as "0.2"'),
]
Replicas = Annotated[int, Field(ge=1, le=1000)]


class S3Source(Node):
    """Objects of a bucket that the Tenant lists in storage.sourceBuckets."""

    bucket: BucketName
    """The bucket."""
    prefix: Annotated[str, Field(max_length=900)] = ""
    """Only objects whose keys begin with this."""
    suffixes: Annotated[list[Suffix], Field(min_length=1, max_length=16), Unique()] = [
        ".md",
        ".pdf",
        ".docx",
        ".html",
        ".txt",
    ]
    """Only objects whose keys end with one of these."""


class Uploads(Node):
    """Documents that arrive over the API."""


class Source(Node):
    """One place where documents come from."""

    s3: S3Source | None = None
    """Objects of an S3 bucket."""
    config_map: NamedRef | None = None
    """A ConfigMap of the same namespace; each of its keys is a document."""
    uploads: Uploads | None = None
    """Documents that arrive over the API."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("s3", "config_map", "uploads"),)


class Chunking(Node):
    """How documents are cut into passages."""

    strategy: Literal["Recursive", "Markdown", "Sentence"] = DEFAULT_CHUNKING.strategy
    """Where to cut: at the largest boundary that fits, at Markdown's headings, or between sentences."""
    max_tokens: Annotated[int, Field(ge=32, le=8192)] = DEFAULT_CHUNKING.max_tokens
    """The longest passage, in tokens."""
    overlap_tokens: Annotated[int, Field(ge=0, le=4096)] = DEFAULT_CHUNKING.overlap_tokens
    """How many tokens of a passage are repeated in the next one."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.overlapTokens * 2 <= self.maxTokens",
            "must be at most half of maxTokens",
            lambda chunking: chunking.overlap_tokens * 2 <= chunking.max_tokens,
            field="overlapTokens",
        ),
    )


class Embedding(Node):
    """The model that turns passages and questions into vectors.

    Another one is tried beside the index that serves: a version by it is built, checked, and then put into service.
    """

    model: ObjectName
    """A ModelRoute with the capability Embed, among the tenant's models."""
    dimensions: Annotated[int, Field(ge=1, le=8192)]
    """Length of the vectors; one that the model offers."""


class Toggle(Node):
    """A step that can be switched on."""

    enabled: bool = False
    """Whether the step is taken."""


class Rerank(Toggle):
    """A second, closer look at the candidates, by a model that is asked with the question and all of them at once."""

    model: ObjectName | None = None
    """A ModelRoute with the capability Rerank, among the tenant's models; the only one there when left out."""


class Retrieval(Node):
    """How passages are found for a question."""

    mode: Literal["Hybrid", "Vector", "Keyword"] = "Hybrid"
    """By meaning (Vector), by words (Keyword), or both, fused by score (Hybrid)."""
    top_k: Annotated[int, Field(ge=1, le=100)] = 8
    """How many passages are returned or answered from."""
    candidates: Annotated[int, Field(ge=1, le=1000)] = 50
    """How many passages each way of searching brings to the fusion."""
    rerank: Rerank = Rerank()
    """Whether the candidates are put in order by a second, closer look; that costs a query of the model's."""
    query_expansion: Toggle = Toggle()
    """Whether `generation.model` rewrites the question into up to three searches more; that costs a call."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.topK <= self.candidates",
            "must be at least topK",
            lambda retrieval: retrieval.top_k <= retrieval.candidates,
            field="candidates",
        ),
    )


class Generation(Node):
    """How an answer is written from the passages."""

    model: ObjectName
    """A ModelRoute with the capability Chat, among the tenant's models."""
    system_prompt: Annotated[str, Field(max_length=16_384)] = "Answer only from the passages given to you."
    """What the model is told before the passages and the question."""
    temperature: Temperature | None = None
    """From "0" to "1"; not sent when left out, since the newest models take none."""
    max_tokens: Annotated[int, Field(ge=1, le=65_536)] = 1024
    """The longest answer, in tokens."""
    context_tokens: Annotated[int, Field(ge=2048, le=2_000_000)] | None = None
    """The most tokens that prompt and answer may have together, at most the model's context window.

    When left out the prompt alone may have 16,000. Passages that do not fit are left out, the last first.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.contextTokens) || self.maxTokens * 2 <= self.contextTokens",
            "must be at least twice maxTokens",
            lambda generation: (
                generation.context_tokens is None or generation.max_tokens * 2 <= generation.context_tokens
            ),
            field="contextTokens",
        ),
    )


class Sync(Node):
    """When the sources are looked at for changes."""

    schedule: Schedule = "*/15 * * * *"
    """A cron schedule in UTC. A changed or deleted source document shows in answers within one sync."""


class PodResources(Node):
    """CPU and memory of one retrieval pod."""

    requests: Resources = {"cpu": "250m", "memory": "512Mi"}
    """What it is given."""
    limits: Resources = {}
    """What it may not pass; memory is limited to what it requests where left out."""


class PipelineServing(Node):
    """The pods that answer questions."""

    mode: Literal["Dedicated", "Shared"] = "Dedicated"
    """Own pods in the tenant's namespace, or the platform's pool with the tenant's scoped storage credentials."""
    min_replicas: Replicas = 1
    """The fewest pods."""
    max_replicas: Replicas = 5
    """The most pods."""
    target_concurrency: Annotated[int, Field(ge=1, le=1000)] = 20
    """Requests in flight per pod above which another pod is started."""
    resources: PodResources = PodResources()
    """CPU and memory of each pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "must be at least minReplicas",
            lambda serving: serving.min_replicas <= serving.max_replicas,
            field="maxReplicas",
        ),
    )


class RagPipelineSpec(Node):
    """Where documents come from, how they are indexed, and how questions are answered."""

    sources: Annotated[list[Source], Field(min_length=1, max_length=16)]
    """Where documents come from; one set of documents per pipeline."""
    chunking: Chunking = Chunking()
    """How they are cut."""
    embedding: Embedding
    """The model that embeds them."""
    retrieval: Retrieval = Retrieval()
    """How passages are found."""
    generation: Generation
    """How answers are written."""
    keep_versions: Annotated[int, Field(ge=1, le=10)] = 2
    """How many versions of the index are kept, the one that serves among them; rollback goes to one of the others."""
    sync: Sync = Sync()
    """When the sources are looked at."""
    serving: PipelineServing = PipelineServing()
    """The pods that answer."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.sources.filter(source, has(source.uploads)).size() <= 1",
            "must hold uploads at most once",
            lambda spec: sum(source.uploads is not None for source in spec.sources) <= 1,
            field="sources",
        ),
    )


class IndexBuild(Node):
    """A version of the index that is being built beside the one that serves."""

    version: Annotated[int, Field(ge=0)]
    """Its number."""
    documents: Annotated[int, Field(ge=0)]
    """How many documents it will hold."""
    done: Annotated[int, Field(ge=0)]
    """How many of them it holds by now."""


class RagPipelineStatus(Status):
    """What the operator has seen; written by the operator only."""

    documents: Annotated[int, Field(ge=0)] | None = None
    """Documents in the index."""
    chunks: Annotated[int, Field(ge=0)] | None = None
    """Passages in the index."""
    index_version: Annotated[int, Field(ge=0)] | None = None
    """The version of the index that answers."""
    building: IndexBuild | None = None
    """The version that is being built, if one is."""
    last_sync_time: Time | None = None
    """When all that the sources were last found to hold was indexed."""
    endpoint: Annotated[str, Field(max_length=2048)] | None = None
    """The URL below which callers query and chat."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    """Pods that answer questions."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """The label selector of these pods."""


_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


class RagPipeline(Resource):
    """Documents of a tenant, indexed and kept in step with their sources, that answer questions with citations."""

    definition: ClassVar[Definition] = Definition(
        kind="RagPipeline",
        plural="ragpipelines",
        short_names=("rag",),
        scope="Namespaced",
        columns=(
            Column("Documents", ".status.documents", "Documents in the index.", type="integer"),
            Column("Chunks", ".status.chunks", "Passages in the index.", type="integer"),
            Column("Version", ".status.indexVersion", "The version of the index that answers.", type="integer"),
            Column("Synced", ".status.lastSyncTime", "How long ago the sources were looked at.", type="date"),
            READY,
            REASON,
            AGE,
        ),
        scale=(".spec.serving.minReplicas", ".status.replicas", ".status.selector"),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.matches(r'{_NAME}') && self.metadata.name.size() <= 40",
            'must be at most 40 lower-case letters, digits and "-", the first a letter, because it names Services',
            lambda pipeline: len(pipeline.metadata.name) <= 40 and bool(re.fullmatch(_NAME, pipeline.metadata.name)),
            field="metadata.name",
        ),
    )

    kind: Literal["RagPipeline"]
    spec: RagPipelineSpec
    status: RagPipelineStatus = RagPipelineStatus()
