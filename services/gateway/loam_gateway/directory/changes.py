"""Changing the directory in PostgreSQL: each change is one transaction, told to all gateways and audited.

What is put again without a difference changes nothing, is not told and leaves no line in the audit log.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.directory import secrets
from loam_gateway.directory.caps import key_policies, nanos_of, tenant_policies
from loam_gateway.directory.queries import CHANNEL
from loam_gateway.ledger.policies import retire, set_policies
from loam_gateway.vault import Vault, VaultError
from loam_shared.contracts import Wire
from loam_shared.contracts.admin import KeyPut, ModelPut, TenantPut
from loam_shared.contracts.templates import TemplatesPut
from loam_shared.errors import ConflictError, NotFoundError

_PUT_MODEL = """
INSERT INTO models (name, uid, spec, credential) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET spec = $3, credential = $4, updated_at = now()
"""
_PUT_TENANT = """
INSERT INTO tenants (name, uid, settings, suspended) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE
SET uid = $2, settings = $3, suspended = $4, active = true, deleted_at = NULL, updated_at = now()
"""
_BEGIN_ANEW = "UPDATE tenants SET began_at = now() WHERE name = $1"
_END_TENANT = """
UPDATE tenants SET active = false, deleted_at = coalesce(deleted_at, now()), updated_at = now()
WHERE name = $1 AND uid = $2 AND active RETURNING settings
"""
_KEY = """
SELECT (to_jsonb(k) - '{tenant,created_at,updated_at,revoked_at}'::text[]) || jsonb_build_object('secrets', (
    SELECT jsonb_object_agg(left(encode(h.sha256, 'hex'), 12), h.expires_at) FROM key_hashes AS h
    WHERE h.tenant = k.tenant AND h.key_id = k.key_id))
FROM api_keys AS k WHERE k.tenant = $1 AND k.key_id = $2
"""
_PUT_KEY = """
INSERT INTO api_keys AS k (tenant, key_id, name, scopes, user_id, workload, monthly_cap, daily_cap, expires_at, made_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant, key_id) DO UPDATE
SET name = $3, scopes = $4, user_id = $5, workload = $6, monthly_cap = $7, daily_cap = $8, expires_at = $9,
    revoked_at = NULL, updated_at = now()
WHERE (k.name, k.scopes, k.user_id, k.workload, k.monthly_cap, k.daily_cap, k.expires_at, k.revoked_at)
      IS DISTINCT FROM ($3, $4, $5, $6, $7, $8, $9, NULL)
RETURNING true
"""
_PUT_HASHES = """
INSERT INTO key_hashes AS h (tenant, key_id, sha256, expires_at)
SELECT $1, $2, * FROM unnest($3::bytea[], $4::timestamptz[])
ON CONFLICT (sha256) DO UPDATE SET expires_at = excluded.expires_at
WHERE h.tenant = $1 AND h.key_id = $2 AND h.expires_at IS DISTINCT FROM excluded.expires_at
RETURNING true
"""
_DROP_OTHER_HASHES = """
DELETE FROM key_hashes WHERE tenant = $1 AND key_id = $2 AND sha256 <> ALL ($3::bytea[]) RETURNING true
"""
_LET_HASHES_EXPIRE = """
UPDATE key_hashes SET expires_at = least(expires_at, $3) WHERE tenant = $1 AND key_id = $2
"""
_COUNT_HASHES = "SELECT count(*) FROM key_hashes WHERE tenant = $1 AND key_id = $2"
_REVOKE_KEYS = """
WITH RECURSIVE line AS (
    SELECT key_id FROM api_keys WHERE tenant = $1 AND key_id = $2
    UNION
    SELECT k.key_id FROM line JOIN api_keys AS k ON k.tenant = $1 AND k.made_by = line.key_id
)
UPDATE api_keys AS k SET revoked_at = now(), updated_at = now() FROM line
WHERE k.tenant = $1 AND k.key_id = line.key_id AND k.revoked_at IS NULL RETURNING k.key_id
"""
_DROP_HASHES = "DELETE FROM key_hashes WHERE tenant = $1 AND key_id = ANY ($2::text[])"
_OWNER_OF_TENANT = "SELECT uid FROM tenants WHERE name = $1 AND active FOR SHARE"
_PUT_TEMPLATES = """
INSERT INTO prompt_templates AS p (tenant, templates) VALUES ($1, $2)
ON CONFLICT (tenant) DO UPDATE SET templates = excluded.templates, updated_at = now()
WHERE p.templates <> excluded.templates RETURNING true
"""
_DROP_TEMPLATES = "DELETE FROM prompt_templates WHERE tenant = $1 RETURNING true"
_TEMPLATES = """
SELECT jsonb_build_object('templates', templates) FROM prompt_templates WHERE tenant = $1 FOR UPDATE
"""
_AUDIT = """
INSERT INTO audit_log (actor, action, tenant, subject, details, before, after)
VALUES ($1, $2, $3, $4, jsonb_build_object('requestId', $5::text), $6, $7)
"""


Json = str | None
"""JSON as text, None where there is nothing."""


@dataclass(frozen=True, slots=True)
class Act:
    """Who changes something, on which request. `actor` is ``operator`` or the id of a key."""

    actor: str
    request_id: str


async def put_model(pool: Pool, vault: Vault, name: str, desired: ModelPut, act: Act) -> None:
    """Make the model as desired. Raises ConflictError when it belongs to another ModelRoute."""
    spec = desired.model_copy(update={"credential": None}).to_json()
    async with changing(pool) as connection:
        row = await connection.fetchrow("SELECT uid, spec, credential FROM models WHERE name = $1 FOR UPDATE", name)
        if row is not None:
            _check_owner(f'the model "{name}"', row["uid"], desired.uid)
            if _is_put(lambda: _revealed_model(vault, row), desired):
                return
        sealed = secrets.sealed_model(vault, desired.credential)
        await connection.execute(_PUT_MODEL, name, desired.uid, spec, sealed)
        await _tell(connection, act, "model.put", None, name, None if row is None else row["spec"], spec)


async def delete_model(pool: Pool, name: str, act: Act) -> None:
    """Take the model away, if it is there."""
    async with changing(pool) as connection:
        spec = await connection.fetchval("DELETE FROM models WHERE name = $1 RETURNING spec", name)
        if spec is not None:
            await _tell(connection, act, "model.delete", None, name, spec, None)


async def put_tenant(pool: Pool, vault: Vault, name: str, desired: TenantPut, act: Act) -> bool:
    """Make the tenant as desired, its caps with it. False when it was so already.

    One that follows another of that name, and does not adopt what that left, begins with nothing spent. Raises
    ConflictError when another Tenant of that name is alive.
    """
    async with changing(pool) as connection:
        row = await connection.fetchrow("SELECT uid, settings, active FROM tenants WHERE name = $1 FOR UPDATE", name)
        stored = TenantPut.model_validate_json(row["settings"]) if row is not None else None
        if row is not None and stored is not None and row["active"]:
            if not desired.adopt:
                _check_owner(f"the tenant {name}", row["uid"], desired.uid)
            if _is_put(lambda: secrets.revealed_tenant(vault, stored), desired):
                return False
        sealed = secrets.sealed_tenant(vault, desired).to_json()
        await connection.execute(_PUT_TENANT, name, desired.uid, sealed, desired.suspended)
        if row is not None and row["uid"] != desired.uid and not desired.adopt:
            await connection.execute(_BEGIN_ANEW, name)
            await retire(connection, name, actor=act.actor)
        await set_policies(connection, tenant_policies(name, desired.budget), actor=act.actor)
        await _tell(connection, act, "tenant.put", name, name, _public(stored), _public(desired))
    return True


async def end_tenant(pool: Pool, name: str, uid: str, act: Act) -> None:
    """Refuse everything of the tenant from now on. Its rows stay as long as its ledger does."""
    async with changing(pool) as connection:
        settings = await connection.fetchval(_END_TENANT, name, uid)
        if settings is None:
            return
        await connection.execute("UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant = $1", name)
        await connection.execute("DELETE FROM key_hashes WHERE tenant = $1", name)
        await connection.execute(_DROP_TEMPLATES, name)
        before = _public(TenantPut.model_validate_json(settings))
        await _tell(connection, act, "tenant.end", name, name, before, None)


async def put_templates(pool: Pool, tenant: str, desired: TemplatesPut, act: Act) -> None:
    """Make these all the templates that the tenant has of its own. Raises NotFoundError, ConflictError."""
    stored = orjson.dumps([template.model_dump(mode="json", by_alias=True) for template in desired.templates]).decode()
    async with changing(pool) as connection:
        owner = await connection.fetchval(_OWNER_OF_TENANT, tenant)
        if owner is None:
            raise NotFoundError(f"there is no tenant {tenant}")
        _check_owner(f"the tenant {tenant}", owner, desired.uid)
        before = await connection.fetchval(_TEMPLATES, tenant)
        change = (_PUT_TEMPLATES, tenant, stored) if desired.templates else (_DROP_TEMPLATES, tenant)
        if await connection.fetchval(*change):
            after = await connection.fetchval(_TEMPLATES, tenant)
            await _tell(connection, act, "templates.put", tenant, tenant, before, after)


async def put_key(
    connection: Connection, tenant: str, key_id: str, desired: KeyPut, act: Act, *, made_by: str | None = None
) -> None:
    """Make the key as desired, its caps with it, within `changing`. `made_by` is the key that a new one is made with.

    Raises ConflictError when one of its hashes belongs to another key or tenant.
    """
    digests = [bytes.fromhex(known.sha256) for known in desired.hashes]
    expiries = [known.expires_at for known in desired.hashes]
    before = await connection.fetchval(_KEY, tenant, key_id)
    changes = [
        await connection.fetchval(_PUT_KEY, tenant, key_id, *_key_columns(desired), made_by),
        await connection.fetchval(_PUT_HASHES, tenant, key_id, digests, expiries),
        await connection.fetchval(_DROP_OTHER_HASHES, tenant, key_id, digests),
    ]
    if await connection.fetchval(_COUNT_HASHES, tenant, key_id) != len(set(digests)):
        raise ConflictError("a hash of this key belongs to another key; make a new key")
    if any(changes):
        await set_policies(connection, key_policies(tenant, key_id, desired), actor=act.actor)
        await _tell(connection, act, "key.put", tenant, key_id, before, await connection.fetchval(_KEY, tenant, key_id))


async def rotate_key(connection: Connection, tenant: str, key_id: str, digest: str, until: datetime, act: Act) -> None:
    """Give the key a new secret, within `changing`; those that it had work `until` then at the longest."""
    before = await connection.fetchval(_KEY, tenant, key_id)
    await connection.execute(_LET_HASHES_EXPIRE, tenant, key_id, until)
    await connection.execute(_PUT_HASHES, tenant, key_id, [bytes.fromhex(digest)], [None])
    await _tell(connection, act, "key.rotate", tenant, key_id, before, await connection.fetchval(_KEY, tenant, key_id))


def _key_columns(key: KeyPut) -> tuple[Any, ...]:
    caps = nanos_of("monthlyUsd", key.monthly_usd), nanos_of("dailyUsd", key.daily_usd)
    return key.name, list(key.scopes), key.user, key.workload, *caps, key.expires_at


async def revoke_key(pool: Pool, tenant: str, key_id: str, act: Act) -> bool:
    """Refuse the key from now on, and every key that was made with it. False when there was none to revoke."""
    async with changing(pool) as connection:
        revoked = [row["key_id"] for row in await connection.fetch(_REVOKE_KEYS, tenant, key_id)]
        before = [await connection.fetchval(_KEY, tenant, each) for each in revoked]
        await connection.execute(_DROP_HASHES, tenant, revoked)
        for each, was in zip(revoked, before, strict=True):
            await _tell(connection, act, "key.revoke", tenant, each, was, None)
        return bool(revoked)


@contextlib.asynccontextmanager
async def changing(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction; all that is changed in it is told at its end, or nothing is."""
    async with pool.acquire() as connection, connection.transaction():
        yield connection


async def audit(
    connection: Connection, act: Act, action: str, tenant: str | None, subject: str, before: Json, after: Json
) -> None:
    """Write down what the act changed in its subject, in the connection's transaction."""
    await connection.execute(_AUDIT, act.actor, action, tenant, subject, act.request_id, before, after)


async def _tell(
    connection: Connection, act: Act, action: str, tenant: str | None, subject: str, before: Json, after: Json
) -> None:
    """Write down what the act changed in its subject, and let every gateway read it again."""
    await audit(connection, act, action, tenant, subject, before, after)
    await connection.execute("SELECT pg_notify($1, '')", CHANNEL)


def _public(tenant: TenantPut | None) -> Json:
    return None if tenant is None else secrets.public_tenant(tenant).to_json()


def _is_put(stored: Callable[[], Wire], desired: Wire) -> bool:
    try:
        return stored() == desired
    except VaultError:
        # It was written with another encryption key: putting it again mends that.
        return False


def _check_owner(what: str, owner: str, uid: str) -> None:
    if owner != uid:
        raise ConflictError(f"{what} belongs to another object of that name, with the uid {owner}")


def _revealed_model(vault: Vault, row: asyncpg.Record) -> ModelPut:
    credential = secrets.revealed_model(vault, row["credential"])
    return ModelPut.model_validate_json(row["spec"]).model_copy(update={"credential": credential})
