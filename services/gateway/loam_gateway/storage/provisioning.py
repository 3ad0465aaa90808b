"""Making and unmaking a tenant's storage: level-based, so every step may be repeated after a crash at any point."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import asyncpg

from loam_gateway.adapters.iam import AccessKey, Identities
from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.adapters.s3 import ObjectStore
from loam_gateway.storage.policy import access_policy, is_bucket, prefix_of, user_of
from loam_gateway.vault import Vault, VaultError
from loam_shared.contracts.admin import StorageGrant
from loam_shared.errors import ConflictError, InvalidRequestError, UnavailableError

Policy = Literal["Retain", "Delete"]
_PAGES_PER_CALL = 10
_PURPOSE = "storage key"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the object store is, as a tenant's pods reach it; `endpoint` is None for AWS itself."""

    region: str
    endpoint: str | None


class Storage:
    """Grants and purges. `identities` is None where pods bring an identity of their own (Pod Identity, IRSA)."""

    def __init__(
        self, pool: Pool, objects: ObjectStore, identities: Identities | None, vault: Vault, place: Place
    ) -> None:
        self._pool = pool
        self.objects = objects
        self._identities = identities
        self._vault = vault
        self._place = place

    async def provision(
        self, tenant: str, *, uid: str, source_buckets: Sequence[str] = (), adopt: bool = False
    ) -> StorageGrant:
        """The tenant's prefix and, where identities are made here, a login that reaches only it and the source buckets.

        Data that an earlier tenant left under this name falls to the same `uid`, or to any with `adopt`. Raises
        ConflictError otherwise, InvalidRequestError for a source bucket that is the platform's own or none, and
        UnavailableError.
        """
        if self.objects.bucket in source_buckets:
            raise InvalidRequestError(
                f"sourceBuckets names {self.objects.bucket}, which holds every tenant's data; name your own buckets",
                param="sourceBuckets",
            )
        if strange := [name for name in source_buckets if not is_bucket(name)]:
            raise InvalidRequestError(f'sourceBuckets: "{strange[0]}" is no bucket\'s name', param="sourceBuckets")
        await self.objects.ensure_bucket()
        await self._pool.execute(_REGISTER, tenant, uid)
        async with self._locked(tenant) as (connection, row):
            key = await self._login(tenant, _taken_over(tenant, row, uid, adopt=adopt), source_buckets)
            sealed = self._vault.encrypt(key.secret.encode(), purpose=_PURPOSE) if key else None
            await connection.execute(_ACTIVATE, tenant, uid, key and key.key_id, sealed)
        return self._grant(tenant, key)

    async def grant(self, tenant: str) -> StorageGrant:
        """The login that the tenant has. Raises UnavailableError where there is none, or none that is known here."""
        row = await self._pool.fetchrow(_HELD, tenant)
        key = None if row is None else self._known_key(row)
        if key is None:
            raise UnavailableError(
                f"no storage login of {tenant} is held here, without which only pods of its own serve its pipelines",
                retry_after=5,
            )
        return self._grant(tenant, key)

    async def purge(self, tenant: str, *, uid: str, policy: Policy) -> bool:
        """End the tenant's storage and say whether all is done; False asks to be called again.

        Retain keeps objects and rows for `uid`; Delete removes them. Either way nothing reaches them any more. Storage
        that another `uid` owns is left alone: this one never had any.
        """
        async with self._locked(tenant) as (connection, row):
            if row is None or row["uid"] != uid:
                return True
            await connection.execute(_CLOSE, tenant, "Retained" if policy == "Retain" else "Purging")
            await connection.execute(_FENCE_PIPELINES, tenant)
            if self._identities is not None:
                await self._identities.delete_user(user_of(tenant))
        if policy == "Retain":
            return True
        if not await self.empty(prefix_of(tenant)):
            return False
        await self._pool.execute("DELETE FROM tenant_storage WHERE tenant = $1 AND uid = $2", tenant, uid)
        return True

    async def empty(self, prefix: str) -> bool:
        """Delete a bounded number of the objects and unfinished uploads below `prefix`; True when none is left."""
        for _ in range(_PAGES_PER_CALL):
            uploads, keys = await self.objects.unfinished(prefix), await self.objects.page(prefix)
            if not uploads and not keys:
                return True
            await asyncio.gather(*(self.objects.abort(upload) for upload in uploads))
            await self.objects.delete(keys)
        return False

    @asynccontextmanager
    async def _locked(self, tenant: str) -> AsyncIterator[tuple[Connection, asyncpg.Record | None]]:
        """The tenant's row, for one caller at a time across all gateways."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection, await connection.fetchrow(_LOCK, tenant)

    async def _login(self, tenant: str, row: asyncpg.Record, source_buckets: Sequence[str]) -> AccessKey | None:
        if self._identities is None:
            return None
        user = user_of(tenant)
        await self._identities.ensure_user(user, access_policy(self.objects.bucket, prefix_of(tenant), source_buckets))
        known, existing = self._known_key(row), await self._identities.key_ids(user)
        # A key that was made just before a crash, or whose secret is lost, is of no use to anybody.
        for key_id in existing:
            if known is None or key_id != known.key_id:
                await self._identities.delete_key(user, key_id)
        if known is not None and known.key_id in existing:
            return known
        return await self._identities.create_key(user)

    def _known_key(self, row: asyncpg.Record) -> AccessKey | None:
        if row["access_key_id"] is None:
            return None
        try:
            secret = self._vault.decrypt(row["secret_access_key"], purpose=_PURPOSE)
        except VaultError:
            return None
        return AccessKey(row["access_key_id"], secret.decode())

    def _grant(self, tenant: str, key: AccessKey | None) -> StorageGrant:
        return StorageGrant(
            bucket=self.objects.bucket,
            prefix=prefix_of(tenant),
            region=self._place.region,
            endpoint=self._place.endpoint,
            access_key_id=key.key_id if key else None,
            secret_access_key=key.secret if key else None,
        )


def _taken_over(tenant: str, row: asyncpg.Record | None, uid: str, *, adopt: bool) -> asyncpg.Record:
    if row is None or row["state"] == "Purging":
        raise ConflictError(f"the data of the former tenant {tenant} is still being deleted")
    if row["uid"] != uid and not adopt:
        raise ConflictError(
            f"data of another tenant named {tenant} is kept here; adopt it expressly, or have it deleted first"
        )
    return row


_REGISTER = "INSERT INTO tenant_storage (tenant, uid) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_HELD = "SELECT access_key_id, secret_access_key FROM tenant_storage WHERE tenant = $1 AND state = 'Active'"
_LOCK = "SELECT * FROM tenant_storage WHERE tenant = $1 FOR UPDATE"
_ACTIVATE = """
UPDATE tenant_storage SET uid = $2, state = 'Active', access_key_id = $3, secret_access_key = $4 WHERE tenant = $1
"""
_CLOSE = """
UPDATE tenant_storage SET state = $2, access_key_id = NULL, secret_access_key = NULL WHERE tenant = $1
"""
# A worker that is still at it loses its lease, and a RagPipeline of any UID may take the retained data over, which
# only an owner of the tenant can make.
_FENCE_PIPELINES = """
UPDATE pipelines SET uid = NULL, epoch = epoch + 1, lease_expires_at = NULL, next_sync_at = NULL WHERE tenant = $1
"""
