"""Three gateways on one database, each server of which a test may kill."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from ..services._servers import embedded
from ..services.gateway._platform import EMBEDDER, HAIKU, LocalBedrock, Servers, TestTenant
from ._bed import Bed, Replica, replicas_running

HOLD_SECONDS = 8
SETTINGS = {"LOAM_HOLD_SECONDS": str(HOLD_SECONDS), "LOAM_DRAIN_TIMEOUT": "1", "LOAM_CACHE_SECONDS": "300"}
# So many calls fail here on purpose that without this most would never reach the provider.
SETTINGS["LOAM_CIRCUIT_FAILURES"] = "0"


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Where processes run."""
    with embedded.scratch_folder() as made:
        yield made


@pytest_asyncio.fixture(scope="session")
async def bed(folder: Path) -> AsyncIterator[Bed]:
    """Three gateways and what they need."""
    with (
        embedded.postgres() as postgres,
        embedded.seaweedfs("admin", "adminsecret") as s3_endpoint,
        contextlib.ExitStack() as stack,
    ):
        valkey = embedded.Valkey(folder)
        valkey.start()
        stack.callback(valkey.stop)
        bedrock = LocalBedrock(folder)
        stack.callback(bedrock.stop)
        servers = Servers(postgres.url("postgres"), valkey.url, s3_endpoint, bedrock.url, SETTINGS)
        bed = Bed(postgres, valkey, bedrock, Replica.several(3, folder, servers), HOLD_SECONDS, folder, servers)
        await bed.migrate()
        async with replicas_running(bed.replicas):
            bed.replicas[0].model("haiku", HAIKU)
            bed.replicas[0].model("embedder", EMBEDDER)
            yield bed


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
