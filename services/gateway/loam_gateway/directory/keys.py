"""Keys that callers make for themselves: never more than they have."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.directory.model import Principal
from loam_shared.errors import ConflictError, ForbiddenError, InvalidApiKeyError, InvalidRequestError, NotFoundError
from loam_shared.money import format_usd

# Names of Kubernetes objects have no underscore, so a key made here is never taken for one of a manifest.
MADE_HERE = "key_"

# A call is charged to the caller's key and to all that it was made with.
_MAX_MAKERS = 4

_KEYS = """
SELECT key_id, name, scopes, user_id, monthly_cap, daily_cap, expires_at, created_at,
       ledger_makers(tenant, key_id) AS makers
FROM api_keys
WHERE tenant = $1 AND ($2::text IS NULL OR key_id = $2) AND workload IS NULL AND revoked_at IS NULL
ORDER BY created_at, key_id
"""
_STILL_GOOD = """
SELECT true FROM api_keys
WHERE tenant = $1 AND key_id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) FOR SHARE
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. `makers` are the key that it was made with, the key that made this one, and so on."""

    key_id: str
    name: str
    scopes: frozenset[str]
    user: str | None
    monthly_cap: int | None
    daily_cap: int | None
    expires_at: datetime | None
    makers: tuple[str, ...]
    created_at: datetime | None = None

    @property
    def from_manifest(self) -> bool:
        """Whether an ApiKey manifest stands for it, and would undo what is done to it here."""
        return not self.key_id.startswith(MADE_HERE)


async def keys(pool: Pool, tenant: str) -> Sequence[Key]:
    """The tenant's active keys."""
    return [_key(row) for row in await pool.fetch(_KEYS, tenant, None)]


async def own_key(pool: Pool, tenant: str, key_id: str) -> Key:
    """A key that may be changed over the API. Raises NotFoundError, and ConflictError for one of a manifest."""
    row = await pool.fetchrow(_KEYS, tenant, key_id)
    if row is None:
        raise NotFoundError(f'there is no key "{key_id}"')
    key = _key(row)
    if key.from_manifest:
        raise ConflictError(f'the key "{key_id}" belongs to an ApiKey manifest; change or delete that')
    return key


async def check_still_good(connection: Connection, caller: Principal) -> None:
    """That the caller's key is good at this very moment, whenever its request began. Raises InvalidApiKeyError.

    Within the transaction that changes something: a body may come as slowly as its sender likes.
    """
    if not await connection.fetchval(_STILL_GOOD, caller.tenant, caller.key_id):
        raise InvalidApiKeyError("the API key is unknown, expired or revoked")


def check_within(caller: Principal, wanted: Key) -> None:
    """That `wanted` may do and spend no more than the caller's own key. Raises ForbiddenError that says what is."""
    if excess := wanted.scopes - caller.scopes:
        raise ForbiddenError(f'this key lacks the scope "{min(excess)}", so it cannot give it on', param="scopes")
    if caller.user is not None and wanted.user != caller.user:
        raise ForbiddenError(f'keys made with this one are charged to its user "{caller.user}"', param="user")
    _check_cap("monthlyBudget", wanted.monthly_cap, caller.monthly_cap)
    _check_cap("dailyBudget", wanted.daily_cap, caller.daily_cap)
    if caller.expires_at is not None and (wanted.expires_at is None or wanted.expires_at > caller.expires_at):
        raise ForbiddenError(
            f"expiresAt may be at most {caller.expires_at.isoformat()}, this key's own", param="expiresAt"
        )


def _check_cap(field: str, wanted: int | None, own: int | None) -> None:
    if own is not None and (wanted is None or wanted > own):
        raise ForbiddenError(f"{field} may be at most {format_usd(own)}, this key's own", param=field)


def check_made_by(caller: Principal, key: Key) -> None:
    """That `key` is the caller's own, or was made with it or with a key made with it. Raises ForbiddenError.

    Keys from before it was written down what they were made with are everybody's who may change keys.
    """
    if key.makers and caller.key_id not in (key.key_id, *key.makers):
        raise ForbiddenError(f'the key "{key.key_id}" was not made with this one')


async def makers_of_next(pool: Pool, caller: Principal) -> tuple[str, ...]:
    """What a key is made with that the caller makes. Raises ForbiddenError when the line gets too long."""
    makers = (caller.key_id, *await pool.fetchval("SELECT ledger_makers($1, $2)", caller.tenant, caller.key_id))
    if len(makers) > _MAX_MAKERS:
        raise ForbiddenError("this key was made with a key that was made with a key, and so on: it can make no more")
    return makers


def check_scopes(scopes: frozenset[str], known: frozenset[str]) -> None:
    """That all scopes exist. Raises InvalidRequestError."""
    if unknown := scopes - known:
        raise InvalidRequestError(f'"{min(unknown)}" is no scope; there are {", ".join(sorted(known))}', param="scopes")


def _key(row: asyncpg.Record) -> Key:
    return Key(
        key_id=row["key_id"],
        name=row["name"],
        scopes=frozenset(row["scopes"]),
        user=row["user_id"],
        monthly_cap=row["monthly_cap"],
        daily_cap=row["daily_cap"],
        expires_at=row["expires_at"],
        makers=tuple(row["makers"]),
        created_at=row["created_at"],
    )
