"""Servers that all tests below share: real ones, started when first asked for, gone with the session."""

import os
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import pytest_asyncio

from loam_gateway.adapters.postgres import Pool, connect
from loam_gateway.migrations import upgrade

from ._servers import embedded


@pytest.fixture(scope="session")
def postgres() -> Iterator[embedded.Postgres]:
    """PostgreSQL with an empty database ``postgres``."""
    with embedded.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A Redis-compatible server."""
    with embedded.valkey() as url:
        yield url


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 and IAM server; the administrator is ``admin`` with the secret ``adminsecret``.

    Making a user gets slower with every user that is there, so rooms that make many have a server of their own.
    """
    with embedded.seaweedfs("admin", "adminsecret") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def migrated_template(postgres: embedded.Postgres) -> str:
    """The name of a database with the newest schema and nothing in it."""
    upgrade(postgres.url("postgres"))
    return "postgres"


@pytest_asyncio.fixture(scope="module")
async def database_url(postgres: embedded.Postgres, migrated_template: str) -> AsyncIterator[str]:
    """A database of the newest schema that only this test module uses."""
    name = f"t{os.urandom(6).hex()}"
    # The template must have no other session, not even the one that copies it.
    await _administer(postgres, f'CREATE DATABASE "{name}" TEMPLATE "{migrated_template}"')
    yield postgres.url(name)
    await _administer(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _administer(postgres: embedded.Postgres, statement: str) -> None:
    administrator = await asyncpg.connect(postgres.url("template1"))
    try:
        await administrator.execute(statement)
    finally:
        await administrator.close()


@pytest_asyncio.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Connections to the module's database."""
    pool = await connect(database_url)
    yield pool
    await pool.close()
