"""Three gateways on one database, each server of which a test may kill."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from ..services._servers import embedded
from ..services.gateway._platform import EMBEDDER, HAIKU, LocalBedrock, Servers, TestTenant
from ._bed import Bed, Replica

HOLD_SECONDS = 8


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Where processes run."""
    with embedded.scratch_folder() as made:
        yield made


@pytest_asyncio.fixture(scope="session")
async def bed(folder: Path) -> AsyncIterator[Bed]:
    """Three gateways and what they need."""
    valkey = embedded.Valkey(folder)
    with embedded.postgres() as postgres, embedded.seaweedfs("admin", "adminsecret") as s3_endpoint:
        valkey.start()
        bedrock = LocalBedrock(folder)
        servers = Servers(postgres.url("postgres"), valkey.url, s3_endpoint, bedrock.url)
        servers.more |= {"LOAM_HOLD_SECONDS": str(HOLD_SECONDS), "LOAM_DRAIN_TIMEOUT": "1", "LOAM_CACHE_SECONDS": "300"}
        bed = Bed(postgres, valkey, bedrock, Replica.several(3, folder, servers), HOLD_SECONDS, folder, servers)
        await bed.migrate()
        await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in bed.replicas))
        bed.replicas[0].model("haiku", HAIKU)
        bed.replicas[0].model("embedder", EMBEDDER)
        yield bed
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in (*bed.replicas, bedrock)))
        valkey.stop()


@pytest_asyncio.fixture
async def database(bed: Bed) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    """For looking at the ledger from outside, through connections that no gateway has."""
    pool = await asyncpg.create_pool(bed.postgres.url("postgres"), min_size=0, max_size=4)
    yield pool
    await pool.close()


@pytest.fixture
def tenant(bed: Bed) -> Iterator[TestTenant]:
    """A tenant of the test's own."""
    made = bed.replicas[0].new_tenant()
    yield made
    made.close()
    bed.bedrock.play()
