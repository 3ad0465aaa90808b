"""What callers of the ledger say and hear. Money is in nano-dollars, prices in nano-dollars per million units."""

import os
import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from loam_shared.money import UNITS_PER_PRICE


class Kind(StrEnum):
    """What was metered."""

    COMPLETION = "completion"
    STREAM = "stream"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    AGENT_STEP = "agent_step"
    CACHE_HIT = "cache_hit"
    CORRECTION = "correction"


class Outcome(StrEnum):
    """How it ended. Only the reaper writes `EXPIRED`."""

    COMPLETE = "complete"
    CUT = "cut"
    FAILED = "failed"
    RELEASED = "released"
    EXPIRED = "expired"


class Scope(StrEnum):
    """Whose cap it is."""

    TENANT = "tenant"
    USER = "user"
    KEY = "key"
    RUN = "run"


class Period(StrEnum):
    """How long a cap counts: calendar days and months in UTC, or for ever (a run)."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class Origin(StrEnum):
    """Who set a cap. The lowest of all that apply counts, so a tenant can only lower what its manifest allows."""

    MANIFEST = "manifest"
    TENANT = "tenant"


EVERYONE = "*"
"""The subject of a policy for every user of a tenant that has none of its own."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A cap; `cap_nanos` None takes it away. `subject` is a user, a key id, EVERYONE, or "" for the tenant itself."""

    tenant: str
    scope: Scope
    period: Period
    cap_nanos: int | None
    subject: str = ""
    origin: Origin = Origin.MANIFEST


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a call used. `input` leaves out what was read from or written to the provider's cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    queries: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars per million tokens of each class, and per million queries of a reranker."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    queries: int = 0

    def cost(self, tokens: Tokens) -> int:
        """What `tokens` cost together, rounded up once, so that it never exceeds the sum of its parts' bounds."""
        total = (
            tokens.input * self.input
            + tokens.output * self.output
            + tokens.cache_read * self.cache_read
            + tokens.cache_write * self.cache_write
            + tokens.queries * self.queries
        )
        return -(-total // UNITS_PER_PRICE)


def new_request_id() -> UUID:
    """A UUIDv7: ordered by time, so that neighbours in time are neighbours in the index."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds << 80) | random
    value = value & ~(0xF << 76) | (0x7 << 76)
    return UUID(int=value & ~(0x3 << 62) | (0x2 << 62))


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A client's Idempotency-Key, and the SHA-256 of the body that came with it."""

    value: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Asks for room under every cap that applies before any money is spent.

    `fixed_nanos` bounds everything but the output (input, tools, media); the output is bounded by `max_output_tokens`
    at `output_nanos_per_million`, and may be clamped down to `min_output_tokens`. A call that costs the platform
    nothing (BYOK) asks for 0 and is never refused for money. `run_cap_nanos` counts when the run is first seen.
    `root_request_id` is the id of the client's request, which one or more of ours serve. `byok` says that
    the tenant's own credentials pay for it.
    """

    root_request_id: str
    tenant: str
    key_id: str
    kind: Kind
    model: str
    fixed_nanos: int
    output_nanos_per_million: int = 0
    max_output_tokens: int = 0
    min_output_tokens: int = 0
    lifetime_seconds: float = 120
    user: str | None = None
    run: str | None = None
    run_cap_nanos: int | None = None
    pipeline: str | None = None
    agent: str | None = None
    markup_ppm: int = 0
    idempotency: IdempotencyClaim | None = None
    byok: bool = False
    request_id: UUID = field(default_factory=new_request_id)


@dataclass(frozen=True, slots=True)
class Hold:
    """Room that was taken: `nanos` on each of `accounts`, enough for `max_output_tokens`.

    `remaining_nanos` is the headroom of the tightest cap after it; None when nothing caps the caller.
    """

    request: HoldRequest
    held_at: datetime
    nanos: int
    max_output_tokens: int
    remaining_nanos: int | None
    accounts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """The same request was answered before; `answer` is what was stored with its settlement."""

    answer: bytes


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a hold turned into.

    `cost_nanos` is normally `price.cost(tokens)`; where usage is not known it is a bound and `estimated` is set.
    `answer`, encrypted, is kept for the Idempotency-Key; without one the key is free again. `model` is set when a
    fallback served the call. `saving_nanos` is what a cache spared the caller. `byok` marks what the tenant's own
    credentials paid for, unless the hold has said so already.
    """

    cost_nanos: int
    tokens: Tokens = Tokens()
    price: Price = Price()
    outcome: Outcome = Outcome.COMPLETE
    estimated: bool = False
    provider: str = ""
    region: str = ""
    model: str | None = None
    saving_nanos: int = 0
    answer: bytes | None = None
    byok: bool = False


@dataclass(frozen=True, slots=True)
class Posting:
    """What was posted. It differs from the settlement only when the hold had expired and was posted whole."""

    cost_nanos: int
    markup_nanos: int
    remaining_nanos: int | None


@dataclass(frozen=True, slots=True)
class Balance:
    """One account as it stands; `cap_nanos` None means not capped, `resets_at` None never."""

    scope: Scope
    subject: str
    period: Period
    cap_nanos: int | None
    held_nanos: int
    posted_nanos: int
    overrun_nanos: int
    resets_at: datetime | None

    @property
    def remaining_nanos(self) -> int | None:
        """Headroom, at least 0; None when not capped."""
        return None if self.cap_nanos is None else max(0, self.cap_nanos - self.held_nanos - self.posted_nanos)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums over the entries that share `group` (one value per dimension asked for).

    `estimated`, `cached` and `byok` count those of the requests whose cost is a bound, that the response cache
    answered, and that the tenant's own credentials paid for.
    """

    group: dict[str, str | None]
    requests: int
    tokens: Tokens
    cost_nanos: int
    markup_nanos: int
    saving_nanos: int
    estimated: int
    cached: int
    byok: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in the ledger that does not add up, in words and figures."""

    what: str
    expected: int | None
    found: int | None
