"""A tenant's storage: its own prefix and nothing else, whatever crashed when, and gone only when it should be."""

import asyncio
import json
import os

import boto3
import pytest
from botocore.exceptions import ClientError

from loam_gateway import storage as storages
from loam_gateway.settings import Settings
from loam_gateway.storage.policy import access_policy, user_of
from loam_shared.errors import ConflictError, InvalidRequestError


def as_tenant(grant):
    """A real client with a tenant's login."""
    return boto3.client(
        "s3",
        endpoint_url=grant.endpoint,
        region_name=grant.region,
        aws_access_key_id=grant.access_key_id,
        aws_secret_access_key=grant.secret_access_key,
    )


async def until_let_in(client, bucket: str, prefix: str) -> None:
    """Wait until the server has heard of a new login, as AWS too takes a moment."""
    async with asyncio.timeout(10):
        while True:
            try:
                await asyncio.to_thread(client.list_objects_v2, Bucket=bucket, Prefix=prefix)
            except ClientError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.fixture
def name() -> str:
    return f"t{os.urandom(4).hex()}"


async def test_a_tenants_login_reaches_its_own_prefix_and_no_other(storage, name):
    grant = await storage.provision(name, uid="1")
    other = await storage.provision(f"{name}2", uid="2")
    client = as_tenant(grant)
    await until_let_in(client, grant.bucket, grant.prefix)
    client.put_object(Bucket=grant.bucket, Key=f"{grant.prefix}a", Body=b"mine")
    assert client.get_object(Bucket=grant.bucket, Key=f"{grant.prefix}a")["Body"].read() == b"mine"
    for refused in (
        lambda: client.put_object(Bucket=grant.bucket, Key=f"{other.prefix}a", Body=b""),
        lambda: client.get_object(Bucket=grant.bucket, Key=f"{other.prefix}a"),
        lambda: client.delete_object(Bucket=grant.bucket, Key=f"{other.prefix}a"),
        lambda: client.list_objects_v2(Bucket=grant.bucket, Prefix=other.prefix),
        lambda: client.list_objects_v2(Bucket=grant.bucket, Prefix="tenants/"),
        lambda: client.list_objects_v2(Bucket=grant.bucket),
        lambda: client.create_multipart_upload(Bucket=grant.bucket, Key=f"{other.prefix}m"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    client.delete_object(Bucket=grant.bucket, Key=f"{grant.prefix}a")


async def test_source_buckets_can_be_read_but_not_written(storage, name):
    admin = storage.objects._client
    await admin.create_bucket(Bucket=f"{name}-docs")
    await admin.put_object(Bucket=f"{name}-docs", Key="a.md", Body=b"# a")
    grant = await storage.provision(name, uid="1", source_buckets=[f"{name}-docs"])
    client = as_tenant(grant)
    await until_let_in(client, f"{name}-docs", "")
    assert client.get_object(Bucket=f"{name}-docs", Key="a.md")["Body"].read() == b"# a"
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket=f"{name}-docs", Key="b.md", Body=b"")


async def test_the_platforms_own_bucket_is_no_source(storage, name):
    with pytest.raises(InvalidRequestError, match="holds every tenant's data"):
        await storage.provision(name, uid="1", source_buckets=[storage.objects.bucket])


@pytest.mark.parametrize("pattern", ["*", "loam*", "acme-?ocs", "acme/docs", ""])
async def test_a_pattern_is_no_source_bucket(storage, name, pattern):
    with pytest.raises(InvalidRequestError, match="no bucket's name"):
        await storage.provision(name, uid="1", source_buckets=["fine-docs", pattern])


def test_no_two_tenants_share_an_iam_user_and_none_has_one_of_the_platforms():
    long = "a" * 63
    cut = user_of(long)
    assert len(cut) <= 64
    # The tenant whose whole name would read as the cut one, and one named like the platform's own user.
    assert user_of(cut.removeprefix("loam-tenant-").replace("_", "-")) != cut
    assert user_of("gateway") not in {"loam-gateway", "gateway"}


async def test_provisioning_again_gives_the_same_login(storage, name):
    grants = [await storage.provision(name, uid="1") for _ in range(3)]
    assert {grant.access_key_id for grant in grants} == {grants[0].access_key_id}
    assert {grant.secret_access_key for grant in grants} == {grants[0].secret_access_key}


async def test_provisioning_again_writes_nothing_and_puts_back_what_was_changed_by_hand(storage, name):
    await storage.provision(name, uid="1")
    client, written = storage._identities._client, []
    client.meta.events.register("before-call.iam", lambda model, **_: written.append(model.name), unique_id=name)
    try:
        await storage.provision(name, uid="1")
        assert {call for call in written if not call.startswith(("Get", "List"))} == set()
        await client.put_user_policy(
            UserName=user_of(name),
            PolicyName="loam-storage",
            PolicyDocument=json.dumps(access_policy("loam", "x/", ())),
        )
        written.clear()
        await storage.provision(name, uid="1")
        assert "PutUserPolicy" in written
    finally:
        client.meta.events.unregister("before-call.iam", unique_id=name)


async def test_provisioning_at_once_from_several_gateways_gives_one_login(storage, name):
    grants = await asyncio.gather(*(storage.provision(name, uid="1") for _ in range(8)))
    assert len({grant.access_key_id for grant in grants}) == 1
    assert len(await storage._identities.key_ids(user_of(name))) == 1


async def test_a_crash_after_the_key_was_made_leaves_no_key_that_nobody_knows(storage, name):
    # What a gateway leaves that was killed between making the key and writing it down.
    await storage._identities.ensure_user(user_of(name), access_policy("loam", "x/", ()))
    lost = await storage._identities.create_key(user_of(name))
    grant = await storage.provision(name, uid="1")
    assert await storage._identities.key_ids(user_of(name)) == [grant.access_key_id]
    assert grant.access_key_id != lost.key_id


async def test_a_lost_secret_means_a_new_key_and_the_end_of_the_old_one(storage, name):
    before = await storage.provision(name, uid="1")
    await storage._pool.execute("UPDATE tenant_storage SET secret_access_key = 'x' WHERE tenant = $1", name)
    after = await storage.provision(name, uid="1")
    assert after.access_key_id != before.access_key_id
    assert await storage._identities.key_ids(user_of(name)) == [after.access_key_id]


async def test_a_secret_is_stored_encrypted(storage, name):
    grant = await storage.provision(name, uid="1")
    kept = await storage._pool.fetchval("SELECT secret_access_key FROM tenant_storage WHERE tenant = $1", name)
    assert grant.secret_access_key.encode() not in kept
    assert grant.secret_access_key not in repr(grant)


async def test_retained_data_falls_to_the_same_tenant_or_to_one_that_adopts_it(storage, name):
    grant = await storage.provision(name, uid="first")
    await storage.objects._client.put_object(Bucket=grant.bucket, Key=f"{grant.prefix}kept", Body=b"kept")
    assert await storage.purge(name, uid="first", policy="Retain")
    assert await storage._identities.key_ids(user_of(name)) == []
    with pytest.raises(ConflictError, match="adopt"):
        await storage.provision(name, uid="stranger")
    again = await storage.provision(name, uid="first")
    await storage.purge(name, uid="first", policy="Retain")
    adopted = await storage.provision(name, uid="second", adopt=True)
    assert again.access_key_id != grant.access_key_id != adopted.access_key_id
    assert await storage.objects.page(grant.prefix) == [f"{grant.prefix}kept"]


async def test_the_end_of_a_stranger_touches_nothing_of_what_is_retained(storage, name):
    grant = await storage.provision(name, uid="first")
    await storage.objects._client.put_object(Bucket=grant.bucket, Key=f"{grant.prefix}kept", Body=b"kept")
    await storage.purge(name, uid="first", policy="Retain")
    assert await storage.purge(name, uid="stranger", policy="Delete")
    assert await storage.objects.page(grant.prefix) == [f"{grant.prefix}kept"]


async def test_deleting_goes_on_in_bounded_steps_until_everything_is_gone(storage, name, monkeypatch):
    monkeypatch.setattr("loam_gateway.adapters.s3.PAGE_KEYS", 10)
    grant = await storage.provision(name, uid="1")
    neighbour = await storage.provision(f"{name}2", uid="2")
    client = storage.objects._client
    keys = [f"{grant.prefix}{number}" for number in range(150)] + [f"{neighbour.prefix}stays"]
    await asyncio.gather(*(client.put_object(Bucket=grant.bucket, Key=key, Body=b"x") for key in keys))
    await client.create_multipart_upload(Bucket=grant.bucket, Key=f"{grant.prefix}half-way")
    steps = [await storage.purge(name, uid="1", policy="Delete")]
    assert steps == [False]
    with pytest.raises(ConflictError, match="still being deleted"):
        await storage.provision(name, uid="1")
    while not steps[-1]:
        steps.append(await storage.purge(name, uid="1", policy="Delete"))
    assert len(steps) == 2
    assert await storage.objects.page(grant.prefix) == []
    assert await storage.objects.unfinished(grant.prefix) == []
    assert await storage._identities.key_ids(user_of(name)) == []
    assert await storage.objects.page(neighbour.prefix) == [f"{neighbour.prefix}stays"]
    assert await storage.provision(name, uid="another")


async def test_where_pods_bring_their_identity_no_login_is_made(aws, pool, vault, storage, name):
    settings = Settings.model_construct(storage_bucket=storage.objects.bucket, storage_identities="Pod")
    async with storages.opened(settings, pool, vault) as opened:
        grant = await opened.provision(name, uid="1")
    assert grant.access_key_id is None
    assert grant.secret_access_key is None
    assert await storage._identities.key_ids(user_of(name)) == []


def test_a_name_too_long_for_iam_still_has_a_user_of_its_own():
    names = {user_of("a" * 62 + last) for last in "bcd"}
    assert len(names) == 3
    assert max(map(len, names)) <= 64
