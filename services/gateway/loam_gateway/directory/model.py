"""What the directory knows, as values."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """On whose behalf a request acts. It comes from a credential, never from a payload.

    `workload` is the pipeline whose own pods hold the key; such a key opens the internal listener only.
    `root_request_id` is the public request that an internal call belongs to.
    """

    tenant: str
    key_id: str
    user: str | None = None
    scopes: frozenset[str] = field(default=frozenset())
    workload: str | None = None
    expires_at: datetime | None = None
    root_request_id: str | None = None
    pipeline: str | None = None
    agent: str | None = None
    run: str | None = None
