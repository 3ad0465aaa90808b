"""The Idempotency-Key of a question: claimed before it goes out, so that of two at once only one is asked.

The claims lie with all others. One that is under way is given up when its time is over, in case its gateway died.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from loam_gateway.adapters.postgres import Pool
from loam_gateway.directory.model import Principal
from loam_gateway.ledger.model import IdempotencyClaim, new_request_id
from loam_gateway.vault import Vault
from loam_shared.errors import IdempotencyConflictError

_PURPOSE = "kept answer to a question"


@dataclass(slots=True)
class Replay:
    """A claim: `kept` is what was answered the first time, None when this is the first."""

    pool: Pool
    vault: Vault
    owner: tuple[str, str, str]
    request_id: UUID
    kept: bytes | None = None

    async def keep(self, answer: bytes) -> None:
        """Keep the answer for 24 hours."""
        await self.pool.execute(_KEEP, *self.owner, self.request_id, self.vault.encrypt(answer, purpose=_PURPOSE))


@asynccontextmanager
async def claimed(
    pool: Pool, vault: Vault, caller: Principal, claim: IdempotencyClaim | None, *, seconds: float
) -> AsyncIterator[Replay | None]:
    """The claim for the time of a question that takes `seconds` at most; None without a key.

    A question that brought no answer leaves the key free. Raises IdempotencyConflictError when the key came before
    with another question, or the first is still under way.
    """
    if claim is None:
        yield None
        return
    replay = Replay(pool, vault, (caller.tenant, caller.key_id, claim.value), new_request_id())
    until_given_up = timedelta(seconds=seconds + 5)
    if not await pool.fetchval(_CLAIM, *replay.owner, replay.request_id, claim.body_hash, until_given_up):
        replay.kept = await _answered_before(replay, claim)
    try:
        yield replay
    finally:
        await pool.execute(_RELEASE, *replay.owner, replay.request_id)


async def _answered_before(replay: Replay, claim: IdempotencyClaim) -> bytes:
    row = await replay.pool.fetchrow(_CLAIMED, *replay.owner)
    if row is None or row["body_hash"] != claim.body_hash:
        raise IdempotencyConflictError("this Idempotency-Key came before with another request")
    if row["answer"] is None:
        raise IdempotencyConflictError("the request with this Idempotency-Key is still being worked on", retry_after=1)
    return replay.vault.decrypt(row["answer"], purpose=_PURPOSE)


_CLAIM = """
INSERT INTO idempotency AS i (tenant, key_id, value, request_id, body_hash, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + $6)
ON CONFLICT (tenant, key_id, value) DO UPDATE
SET request_id = $4, body_hash = $5, answer = NULL, expires_at = now() + $6 WHERE i.expires_at < now()
RETURNING true
"""
_CLAIMED = "SELECT body_hash, answer FROM idempotency WHERE tenant = $1 AND key_id = $2 AND value = $3"
_KEEP = """
UPDATE idempotency SET answer = $5, expires_at = now() + interval '24 hours'
WHERE tenant = $1 AND key_id = $2 AND value = $3 AND request_id = $4
"""
_RELEASE = """
DELETE FROM idempotency
WHERE tenant = $1 AND key_id = $2 AND value = $3 AND request_id = $4 AND answer IS NULL
"""
