"""The schema comes up to date once, whoever starts at the same time, and all of it or nothing."""

import asyncio
import os
import sys

import asyncpg
import pytest
import pytest_asyncio

from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import Hold, HoldRequest, Kind
from loam_gateway.migrations import upgrade
from loam_shared.errors import UnavailableError


@pytest_asyncio.fixture
async def empty_database(postgres):
    """A database with nothing in it."""
    name = f"t{os.urandom(6).hex()}"
    administrator = await asyncpg.connect(postgres.url("template1"))
    await administrator.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    yield postgres.url(name)
    await administrator.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await administrator.close()


async def test_two_migrations_at_once_are_one(empty_database):
    program = f"from loam_gateway.migrations import upgrade; upgrade({empty_database!r})"
    commands = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", program),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    said = [(await command.communicate())[0].decode() for command in commands]
    assert [command.returncode for command in commands] == [0, 0], said
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
    await connection.close()


async def test_migrating_again_changes_nothing(empty_database):
    await asyncio.to_thread(upgrade, empty_database)
    connection = await asyncpg.connect(empty_database)
    before = await connection.fetch("SELECT oid, relname, relfilenode FROM pg_class ORDER BY oid")
    await asyncio.to_thread(upgrade, empty_database)
    assert await connection.fetch("SELECT oid, relname, relfilenode FROM pg_class ORDER BY oid") == before
    await connection.close()


async def test_a_migration_that_fails_leaves_nothing_behind(empty_database):
    connection = await asyncpg.connect(empty_database)
    # The last table that 0001 makes is there already, so it fails after having made all others.
    await connection.execute("CREATE TABLE audit_log (id bigint)")
    with pytest.raises(Exception, match="audit_log"):
        await asyncio.to_thread(upgrade, empty_database)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [row["tablename"] for row in tables] == ["audit_log"]
    await connection.close()


async def test_a_ledger_on_a_database_without_schema_says_what_to_do(empty_database):
    async with asyncpg.create_pool(empty_database, min_size=0) as pool:
        with pytest.raises(UnavailableError, match="python -m loam_gateway migrate"):
            await Ledger(pool).start()


async def test_a_ledger_of_an_earlier_release_goes_on_where_it_stood(empty_database):
    """Open holds lay in partitions then; they are settled, expired and counted as if nothing had happened."""
    await asyncio.to_thread(upgrade, empty_database, "0003")
    async with asyncpg.create_pool(empty_database, min_size=0) as pool:
        await pool.execute(_EARLIER)
        await asyncio.to_thread(upgrade, empty_database)
        async with Ledger(pool, reap_seconds=3600) as ledger:
            assert await ledger.verify() == []
            await ledger.reap()
            row = await pool.fetchrow("SELECT held, posted FROM accounts WHERE tenant = 'old'")
            assert tuple(row) == (30, 75)
            assert await pool.fetchval("SELECT array_agg(cost ORDER BY cost) FROM entries") == [5, 70]
            hold = await ledger.hold(HoldRequest("r", "old", "backend", Kind.COMPLETION, "m", 25))
            assert isinstance(hold, Hold)
            assert hold.remaining_nanos == 200 - 75 - 30 - 25
            assert await ledger.verify() == []


_EARLIER = """
INSERT INTO tenants (name, uid) VALUES ('old', 'uid');
INSERT INTO api_keys (tenant, key_id, name) VALUES ('old', 'backend', 'backend');
INSERT INTO budget_policies (tenant, scope, subject, period, origin, cap)
VALUES ('old', 'tenant', '', 'month', 'manifest', 200);
INSERT INTO accounts (tenant, scope, subject, period, window_start, window_end, cap, held, posted)
VALUES ('old', 'tenant', '', 'month', date_trunc('month', now(), 'UTC'),
        date_trunc('month', now(), 'UTC') + interval '1 month', 200, 100, 5);
INSERT INTO holds (request_id, held_at, expires_at, nanos, output_tokens, accounts, root_request_id, kind, tenant,
                   key_id, model, markup_ppm)
SELECT gen_random_uuid(), now(), now() + life, nanos, 0, (SELECT array_agg(id) FROM accounts), 'r', 'stream', 'old',
       'backend', 'm', 0
FROM (VALUES (interval '1 hour', 30), (interval '-1 second', 70)) AS h(life, nanos);
INSERT INTO entries
SELECT gen_random_uuid(), now(), now(), 'completion', 'complete', false, NULL, 'old', 'backend', NULL, NULL, NULL, NULL,
       'r', 'm', 'Bedrock', 'us-east-1', 5, 0, 0, 0, 0, 1000000, 0, 0, 0, 0, 5, 5, 0, 0,
       (SELECT array_agg(id) FROM accounts)
"""
