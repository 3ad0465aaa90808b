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
from loam_gateway.directory.caps import key_policy, nanos_of, tenant_policies
from loam_gateway.directory.queries import CHANNEL
from loam_gateway.ledger.policies import set_policies
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
_END_TENANT = """
UPDATE tenants SET active = false, deleted_at = coalesce(deleted_at, now()), updated_at = now()
WHERE name = $1 AND uid = $2 AND active RETURNING name
"""
_PUT_KEY = """
INSERT INTO api_keys AS k (tenant, key_id, name, scopes, user_id, workload, monthly_cap, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (tenant, key_id) DO UPDATE
SET name = $3, scopes = $4, user_id = $5, workload = $6, monthly_cap = $7, expires_at = $8,
    revoked_at = NULL, updated_at = now()
WHERE (k.name, k.scopes, k.user_id, k.workload, k.monthly_cap, k.expires_at, k.revoked_at)
      IS DISTINCT FROM ($3, $4, $5, $6, $7, $8, NULL)
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
_REVOKE_KEY = """
UPDATE api_keys SET revoked_at = now(), updated_at = now()
WHERE tenant = $1 AND key_id = $2 AND revoked_at IS NULL RETURNING key_id
"""
_OWNER_OF_TENANT = "SELECT uid FROM tenants WHERE name = $1 AND active FOR SHARE"
_PUT_TEMPLATES = """
INSERT INTO prompt_templates AS p (tenant, templates) VALUES ($1, $2)
ON CONFLICT (tenant) DO UPDATE SET templates = excluded.templates, updated_at = now()
WHERE p.templates <> excluded.templates RETURNING true
"""
_DROP_TEMPLATES = "DELETE FROM prompt_templates WHERE tenant = $1 RETURNING true"
_AUDIT = "INSERT INTO audit_log (actor, action, tenant, subject, details) VALUES ($1, $2, $3, $4, $5)"


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
        await _tell(connection, act, "model.put", None, name, orjson.loads(spec))


async def delete_model(pool: Pool, name: str, act: Act) -> None:
    """Take the model away, if it is there."""
    async with changing(pool) as connection:
        if await connection.fetchval("DELETE FROM models WHERE name = $1 RETURNING name", name):
            await _tell(connection, act, "model.delete", None, name, {})


async def put_tenant(pool: Pool, vault: Vault, name: str, desired: TenantPut, act: Act) -> bool:
    """Make the tenant as desired, its caps with it. False when it was so already.

    Raises ConflictError when another Tenant of that name is alive.
    """
    async with changing(pool) as connection:
        row = await connection.fetchrow("SELECT uid, settings, active FROM tenants WHERE name = $1 FOR UPDATE", name)
        if row is not None and row["active"]:
            if not desired.adopt:
                _check_owner(f"the tenant {name}", row["uid"], desired.uid)
            stored = TenantPut.model_validate_json(row["settings"])
            if _is_put(lambda: secrets.revealed_tenant(vault, stored), desired):
                return False
        sealed = secrets.sealed_tenant(vault, desired).to_json()
        await connection.execute(_PUT_TENANT, name, desired.uid, sealed, desired.suspended)
        await set_policies(connection, tenant_policies(name, desired.budget), actor=act.actor)
        public = orjson.loads(secrets.public_tenant(desired).to_json())
        await _tell(connection, act, "tenant.put", name, name, public)
    return True


async def end_tenant(pool: Pool, name: str, uid: str, act: Act) -> None:
    """Refuse everything of the tenant from now on. Its rows stay as long as its ledger does."""
    async with changing(pool) as connection:
        if await connection.fetchval(_END_TENANT, name, uid) is None:
            return
        await connection.execute("UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant = $1", name)
        await connection.execute("DELETE FROM key_hashes WHERE tenant = $1", name)
        await connection.execute(_DROP_TEMPLATES, name)
        await _tell(connection, act, "tenant.end", name, name, {"uid": uid})


async def put_templates(pool: Pool, tenant: str, desired: TemplatesPut, act: Act) -> None:
    """Make these all the templates that the tenant has of its own. Raises NotFoundError, ConflictError."""
    stored = orjson.dumps([template.model_dump(mode="json", by_alias=True) for template in desired.templates]).decode()
    async with changing(pool) as connection:
        owner = await connection.fetchval(_OWNER_OF_TENANT, tenant)
        if owner is None:
            raise NotFoundError(f"there is no tenant {tenant}")
        _check_owner(f"the tenant {tenant}", owner, desired.uid)
        change = (_PUT_TEMPLATES, tenant, stored) if desired.templates else (_DROP_TEMPLATES, tenant)
        if await connection.fetchval(*change):
            labels = [template.label for template in desired.templates]
            await _tell(connection, act, "templates.put", tenant, tenant, {"templates": labels})


async def put_key(connection: Connection, tenant: str, key_id: str, desired: KeyPut, act: Act) -> None:
    """Make the key as desired, its cap with it, within `changing`.

    Raises ConflictError when one of its hashes belongs to another key or tenant.
    """
    digests = [bytes.fromhex(known.sha256) for known in desired.hashes]
    expiries = [known.expires_at for known in desired.hashes]
    changes = [
        await connection.fetchval(_PUT_KEY, tenant, key_id, *_key_columns(desired)),
        await connection.fetchval(_PUT_HASHES, tenant, key_id, digests, expiries),
        await connection.fetchval(_DROP_OTHER_HASHES, tenant, key_id, digests),
    ]
    if await connection.fetchval(_COUNT_HASHES, tenant, key_id) != len(set(digests)):
        raise ConflictError("a hash of this key belongs to another key; make a new key")
    if any(changes):
        await set_policies(connection, [key_policy(tenant, key_id, desired.monthly_usd)], actor=act.actor)
        await _tell(connection, act, "key.put", tenant, key_id, orjson.loads(desired.to_json()))


async def rotate_key(connection: Connection, tenant: str, key_id: str, digest: str, until: datetime, act: Act) -> None:
    """Give the key a new secret, within `changing`; those that it had work `until` then at the longest."""
    await connection.execute(_LET_HASHES_EXPIRE, tenant, key_id, until)
    await connection.execute(_PUT_HASHES, tenant, key_id, [bytes.fromhex(digest)], [None])
    await _tell(connection, act, "key.rotate", tenant, key_id, {"previousUntil": until.isoformat()})


def _key_columns(key: KeyPut) -> tuple[Any, ...]:
    cap = nanos_of("monthlyUsd", key.monthly_usd)
    return key.name, list(key.scopes), key.user, key.workload, cap, key.expires_at


async def revoke_key(pool: Pool, tenant: str, key_id: str, act: Act) -> bool:
    """Refuse the key from now on. False when there was none to revoke."""
    async with changing(pool) as connection:
        if await connection.fetchval(_REVOKE_KEY, tenant, key_id) is None:
            return False
        await connection.execute("DELETE FROM key_hashes WHERE tenant = $1 AND key_id = $2", tenant, key_id)
        await _tell(connection, act, "key.revoke", tenant, key_id, {})
        return True


@contextlib.asynccontextmanager
async def changing(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction; all that is changed in it is told at its end, or nothing is."""
    async with pool.acquire() as connection, connection.transaction():
        yield connection


async def _tell(
    connection: Connection, act: Act, action: str, tenant: str | None, subject: str, details: dict[str, Any]
) -> None:
    facts = orjson.dumps(details | {"requestId": act.request_id}).decode()
    await connection.execute(_AUDIT, act.actor, action, tenant, subject, facts)
    await connection.execute("SELECT pg_notify($1, '')", CHANNEL)


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
