"""`ledger verify` finds whatever does not add up, and says nothing where everything does."""

import asyncio

import pytest

from loam_gateway.ledger import verify
from loam_gateway.ledger.model import Difference

from .conftest import granted, paid


@pytest.fixture
async def spent(customer, ledger):
    """A tenant with one open hold and one entry."""
    await ledger.set_policy(customer.cap(1000))
    await ledger.hold(customer.request(30))
    await ledger.settle(granted(await ledger.hold(customer.request(100))), paid(60))
    return customer


_DAY = "UPDATE accounts SET {} WHERE tenant = $1 AND scope = 'tenant' AND period = 'day'"
_TAMPERED = {
    "held": (_DAY.format("held = held + 1"), 30, 31),
    "posted": (_DAY.format("posted = posted - 5"), 60, 55),
    "overrun": (_DAY.format("overrun = 7"), 0, 7),
    "cap": (_DAY.format("cap = 1001"), 1000, 1001),
}


@pytest.mark.parametrize("what", _TAMPERED)
async def test_an_account_that_was_tampered_with_is_found(spent, what):
    statement, expected, found = _TAMPERED[what]
    async with spent.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement, spent.name)
        [difference] = await verify.differences(connection)
        await transaction.rollback()
    assert (difference.expected, difference.found) == (expected, found)
    assert difference.what.endswith(f"): {what}")
    assert spent.name in difference.what


async def test_a_hold_that_vanished_is_found_in_every_account_it_touched(spent):
    async with spent.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM holds WHERE tenant = $1", spent.name)
        found = await verify.differences(connection)
        await transaction.rollback()
    assert [(difference.expected, difference.found) for difference in found] == [(0, 30)] * 4


async def test_a_hold_that_stayed_beside_its_entry_is_found(spent):
    async with spent.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        [hold] = await connection.fetch("SELECT request_id FROM holds WHERE tenant = $1", spent.name)
        await connection.execute(_POST_BESIDE, spent.name)
        found = await verify.differences(connection)
        await transaction.rollback()
    assert found[-1] == Difference(f"request {hold['request_id']}: open holds beside its entry", 0, 1)
    # And the entry is missing in each of its accounts.
    assert [(difference.expected, difference.found) for difference in found[:-1]] == [(90, 60)] * 4


_POST_BESIDE = """
INSERT INTO entries
SELECT h.request_id, h.held_at, now(), h.kind, 'expired', true, NULL, h.tenant, h.key_id, h.user_id, h.run, h.pipeline,
       h.agent, h.root_request_id, h.model, '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, h.nanos, h.nanos, 0, 0, h.accounts
FROM holds AS h WHERE tenant = $1
"""


async def test_a_call_with_the_tenants_own_credentials_that_cost_the_platform_something_is_found(customer, ledger):
    hold = granted(await ledger.hold(customer.request(0, byok=True)))
    await ledger.settle(hold, paid(60, estimated=True))
    assert await ledger.verify() == [Difference(f"entry {hold.request.request_id}: cost", 0, 60)]
    await ledger.correct(hold, -60, actor="ada", reason="it was free")


async def test_an_entry_that_is_not_what_its_price_says_is_found(customer, ledger):
    hold = granted(await ledger.hold(customer.request(100)))
    settlement = paid(60)
    await ledger.settle(hold, type(settlement)(61, settlement.tokens, settlement.price))
    assert await ledger.verify() == [Difference(f"entry {hold.request.request_id}: cost", 60, 61)]
    await ledger.correct(hold, -1, actor="ada", reason="it was 60")


async def test_it_can_be_run_while_the_money_goes_on(customer, ledger, open_ledger):
    async def spend():
        for _ in range(40):
            await ledger.settle(granted(await ledger.hold(customer.request(3))), paid(2))

    spending = asyncio.gather(*(spend() for _ in range(8)))
    reader = await open_ledger()
    while not spending.done():
        assert [difference for difference in await reader.verify() if customer.name in difference.what] == []
        await asyncio.sleep(0)
    await spending


async def test_the_report_says_so_and_names_every_difference(spent, capsys):
    async with spent.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        before = await verify.report(connection)
        await connection.execute(_TAMPERED["posted"][0], spent.name)
        after = await verify.report(connection)
        await transaction.rollback()
    assert (before, after) == (0, 1)
    said = capsys.readouterr().out
    assert "open holds: it adds up" in said
    assert f"({spent.name} tenant , day from" in said
    assert "posted is 55, should be 60" in said
    assert "1 differences" in said
