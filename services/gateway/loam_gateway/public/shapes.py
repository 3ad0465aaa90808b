"""What answers look like, for the OpenAPI schema: bodies that are written out by hand for speed are described here.

Nothing is validated against these at run time; the conformance tests hold real answers against them.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Usd = str
"""An exact amount in US dollars, as decimal text."""


class _OpenAI(BaseModel):
    """Of OpenAI's shape: snake case, and clients put up with more than they know."""


class _Plain(BaseModel):
    """Of Loam's own shape."""

    model_config = ConfigDict(alias_generator=to_camel)


class ErrorDetail(_Plain):
    """What went wrong. Some codes come with further facts: `cap`, `remainingUsd` and `resetsAt` with a 402."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel)
    type: str
    code: str
    message: str
    param: str | None
    request_id: str


class Error(BaseModel):
    """The one shape of errors."""

    error: ErrorDetail


class ToolFunction(_OpenAI):
    """A call of a function; `arguments` is JSON text."""

    name: str
    arguments: str


class AnswerToolCall(_OpenAI):
    """A call that the model asks for."""

    id: str
    type: Literal["function"]
    function: ToolFunction


class AnswerMessage(_OpenAI):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    tool_calls: list[AnswerToolCall] | None = None
    reasoning_content: str | None = None


class Choice(_OpenAI):
    """The one answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    logprobs: None = None


class CompletionUsage(_OpenAI):
    """What a completion used, and what it cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: Usd


class ChatCompletion(_OpenAI):
    """A whole chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class EmbeddingVector(_OpenAI):
    """One vector: floats, or little-endian 32-bit floats in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(_OpenAI):
    """What embedding used, and what it cost."""

    prompt_tokens: int
    total_tokens: int
    cost_usd: Usd


class EmbeddingList(_OpenAI):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingVector]
    model: str
    usage: EmbeddingUsage


class ModelEntry(_OpenAI):
    """A model that the tenant may use."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_OpenAI):
    """All models that the tenant may use."""

    object: Literal["list"]
    data: list[ModelEntry]


class PlainUsage(_Plain):
    """What a call used, and what it cost."""

    input_tokens: int
    output_tokens: int
    cost_usd: Usd


class PlainCompletion(_Plain):
    """An answer."""

    content: str | None
    model: str
    usage: PlainUsage
    cached: bool


class PlainEmbeddingUsage(_Plain):
    """What embedding used, and what it cost."""

    input_tokens: int
    cost_usd: Usd


class PlainEmbeddings(_Plain):
    """Vectors in the order of the inputs."""

    embeddings: list[list[float]]
    model: str
    usage: PlainEmbeddingUsage


class TemplateList(_Plain):
    """Prompt templates that a call may name."""

    templates: list[dict[str, Any]]


class NewKeySecret(_Plain):
    """A new key: its secret is in this answer and nowhere else."""

    api_key: str
    key_id: str


class RotatedKeySecret(NewKeySecret):
    """A key's new secret, and when the one before ends."""

    previous_expires_at: datetime


class KeyEntry(_Plain):
    """A key, without its secret."""

    key_id: str
    name: str
    scopes: list[str]
    user: str | None
    monthly_budget: Usd | None
    daily_budget: Usd | None
    expires_at: datetime | None
    created_at: datetime
    made_by: str | None
    managed_by: Literal["ApiKey manifest", "API"]


class KeyList(_Plain):
    """The tenant's keys."""

    keys: list[KeyEntry]


class UsageEntry(_Plain):
    """Sums of one group; the dimensions that were grouped by are beside them."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel)
    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: Usd
    markup_usd: Usd
    saving_usd: Usd
    estimated_requests: int


class UsageReport(_Plain):
    """Sums of the ledger's entries from `from` to before `to`."""

    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    group_by: list[str]
    rows: list[UsageEntry]


class CapState(_Plain):
    """One cap that the key is charged to, and how much of it is left; without a cap `capUsd` is null."""

    scope: Literal["tenant", "user", "key", "run"]
    subject: str
    period: Literal["day", "month", "total"]
    cap_usd: Usd | None
    posted_usd: Usd
    held_usd: Usd
    overrun_usd: Usd
    remaining_usd: Usd | None
    resets_at: datetime | None


class CapList(_Plain):
    """Everything that this key is charged to."""

    caps: list[CapState]


class DocumentTaken(_Plain):
    """A document and what will happen to it."""

    document_id: str
    name: str
    status: str


class DocumentsTaken(_Plain):
    """Several documents of one upload."""

    documents: list[DocumentTaken]


class SyncQueued(_Plain):
    """A sync that will begin."""

    status: str


class Ticket(_Plain):
    """What opens one WebSocket in place of the key."""

    ticket: str
    expires_at: datetime


class Health(_Plain):
    """Whether requests can be served, and the state of each dependency."""

    status: Literal["ok", "degraded", "unavailable"]
    reason: str | None = None
    dependencies: dict[str, str] | None = None
