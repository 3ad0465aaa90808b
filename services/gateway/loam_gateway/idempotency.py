"""The Idempotency-Key of what creates but costs nothing: claimed and answered in the transaction that creates.

What costs claims its key with the ledger's hold; both keep their claims in the same table.
"""

from datetime import timedelta

from loam_gateway.adapters.postgres import Connection
from loam_gateway.directory.model import Principal
from loam_gateway.ledger.model import IdempotencyClaim, new_request_id
from loam_gateway.vault import Vault
from loam_shared.errors import IdempotencyConflictError

_KEPT = timedelta(hours=24)
_PURPOSE = "kept creation"

_CLAIM = """
INSERT INTO idempotency AS i (tenant, key_id, value, body_hash, request_id, answer, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7)
ON CONFLICT (tenant, key_id, value) DO UPDATE
SET body_hash = $4, request_id = $5, answer = $6, expires_at = now() + $7 WHERE i.expires_at < now()
RETURNING true
"""
_CLAIMED = "SELECT body_hash, answer FROM idempotency WHERE tenant = $1 AND key_id = $2 AND value = $3"


async def claim(
    connection: Connection, vault: Vault, caller: Principal, wanted: IdempotencyClaim, answer: bytes
) -> bytes | None:
    """Claim the key for `answer` within the caller's transaction. The answer given before, if it was claimed already.

    Raises IdempotencyConflictError when it was claimed for something else.
    """
    owner = (caller.tenant, caller.key_id, wanted.value)
    sealed = vault.encrypt(answer, purpose=_PURPOSE)
    if await connection.fetchval(_CLAIM, *owner, wanted.body_hash, new_request_id(), sealed, _KEPT):
        return None
    row = await connection.fetchrow(_CLAIMED, *owner)
    if row is None or row["body_hash"] != wanted.body_hash or row["answer"] is None:
        raise IdempotencyConflictError("this Idempotency-Key came before with another request")
    return vault.decrypt(row["answer"], purpose=_PURPOSE)
