"""One gateway, one Bedrock and one database for all tests here: each test makes tenants of its own."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from .._servers import embedded
from ._platform import EMBEDDER, HAIKU, GatewayProcess, LocalBedrock, Servers, TestTenant


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Where processes run."""
    with embedded.scratch_folder() as made:
        yield made


@pytest.fixture(scope="session")
def bedrock(folder: Path) -> Iterator[LocalBedrock]:
    """The local Bedrock."""
    server = LocalBedrock(folder)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gateway_database(postgres: embedded.Postgres, migrated_template: str) -> str:
    """A migrated database for the gateway."""
    name = f"gateway{os.urandom(4).hex()}"

    async def create() -> None:
        administrator = await asyncpg.connect(postgres.url("template1"))
        await administrator.execute(f'CREATE DATABASE "{name}" TEMPLATE "{migrated_template}"')
        await administrator.close()

    asyncio.run(create())
    return postgres.url(name)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server of our own: each test makes users."""
    with embedded.seaweedfs("admin", "adminsecret") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def servers(gateway_database: str, valkey_url: str, s3_endpoint: str, bedrock: LocalBedrock) -> Servers:
    """What gateways are pointed at."""
    return Servers(gateway_database, valkey_url, s3_endpoint, bedrock.url)


@pytest.fixture(scope="session")
def gateway(folder: Path, servers: Servers) -> Iterator[GatewayProcess]:
    """A running gateway that knows two models."""
    process = GatewayProcess(folder, servers).start()
    process.model("haiku", HAIKU)
    process.model("embedder", EMBEDDER)
    yield process
    process.stop()


@pytest.fixture
def tenant(gateway: GatewayProcess) -> Iterator[TestTenant]:
    """A tenant of the test's own."""
    made = gateway.new_tenant()
    yield made
    made.close()


@pytest.fixture
def faults(bedrock: LocalBedrock) -> Iterator[Any]:
    """Plays faults for the time of a test."""
    yield bedrock.play
    bedrock.play()


@pytest.fixture
def query(gateway_database: str) -> Any:
    """Reads the gateway's database."""

    def run(sql: str, *values: Any) -> list[dict[str, Any]]:
        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(gateway_database)
            try:
                return [dict(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    return run
