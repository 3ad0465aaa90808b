"""A pipeline's retrieval service, as the gateway calls it, with a caller token in ``Authorization: Bearer``.

| call | answer |
|---|---|
| ``POST /query`` Query | Matches |
| ``POST /chat`` Chat | SSE: ``token`` {text}, ``citation`` Citation, ``usage`` Usage, ``done`` {}, ``error`` {error} |
| ``GET /healthz`` | 200 when it can serve |

The gateway says with each call which version of the index counts, so an answer never mixes two of them. A pipeline
without any committed index sends no `index`, and gets no matches.

A pipeline's own pods know its spec and storage. The platform's pool, which serves the pipelines of many tenants, knows
nothing and is told both with each call, in `serving`; the caller token names that part by its digest, so nobody but the
gateway can make one.
"""

import hashlib
from typing import Any, Literal

from pydantic import Field, StrictInt

from loam_shared.contracts import Wire
from loam_shared.contracts.admin import StorageGrant
from loam_shared.contracts.internal import IndexPointer

FilterValue = str | StrictInt


class Serving(Wire):
    """What a pipeline is served by: the parts of its spec that retrieval reads, and its tenant's storage.

    `uid` is the RagPipeline's: one that is made anew under an old name begins with tables of the old names.
    """

    uid: str
    spec: dict[str, Any]
    storage: StorageGrant

    @property
    def digest(self) -> str:
        """SHA-256 of all of it in hex, as the caller token carries it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


class Query(Wire):
    """A search.

    `filter` maps a metadata field (documentId, name, source, sourcePrefix, mediaType, page) to a value or a list.
    """

    query: str = Field(min_length=1, max_length=20_000)
    top_k: int | None = Field(default=None, ge=1, le=100)
    filter: dict[str, FilterValue | list[FilterValue]] = Field(default_factory=dict)
    index: IndexPointer | None = None
    serving: Serving | None = Field(default=None, repr=False)


class Span(Wire):
    """Character offsets into the document's extracted text, end exclusive, and the page (from 1) where there is one."""

    start: int
    end: int
    page: int | None = None


class Match(Wire):
    """One passage that was found; a higher score is better, only within one answer."""

    document_id: str
    chunk_id: str
    text: str
    score: float
    source: str
    span: Span


class Usage(Wire):
    """What a call has cost so far, embedding and generation together."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: str = "0"


class Matches(Wire):
    """Best first."""

    matches: tuple[Match, ...]
    usage: Usage = Usage()


class Message(Wire):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=200_000)


class Chat(Wire):
    """A question with its conversation so far."""

    messages: tuple[Message, ...] = Field(min_length=1, max_length=200)
    filter: dict[str, FilterValue | list[FilterValue]] = Field(default_factory=dict)
    index: IndexPointer | None = None
    serving: Serving | None = Field(default=None, repr=False)


class Citation(Wire):
    """A quote of the answer's sources, checked against what was retrieved."""

    document_id: str
    source: str
    span: Span
    quote: str


class ChatEvent(Wire):
    """One server-sent event of a chat answer, by name and data."""

    event: Literal["token", "citation", "usage", "done", "error"]
    data: dict[str, Any] = Field(default_factory=dict)
