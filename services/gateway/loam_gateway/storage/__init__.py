"""A tenant's place in the object store: its prefix, the identity that reaches only that prefix, and their end."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from loam_gateway.adapters import aws
from loam_gateway.adapters.iam import Identities
from loam_gateway.adapters.s3 import ObjectStore
from loam_gateway.storage.provisioning import Place, Policy, Storage
from loam_gateway.vault import Vault

if TYPE_CHECKING:
    from loam_gateway.adapters.postgres import Pool
    from loam_gateway.settings import Settings

__all__ = ["Place", "Policy", "Storage", "opened"]


@asynccontextmanager
async def opened(settings: "Settings", pool: "Pool", vault: Vault) -> AsyncIterator[Storage]:
    """Storage with clients that live as long as the context."""
    there = aws.AwsSettings()
    async with AsyncExitStack() as stack:
        objects = ObjectStore(await stack.enter_async_context(aws.client("s3", there)), settings.storage_bucket)
        identities = None
        if settings.storage_identities == "Iam":
            identities = Identities(await stack.enter_async_context(aws.client("iam", there)))
        yield Storage(pool, objects, identities, vault, Place(there.region, there.endpoint_url_s3))
