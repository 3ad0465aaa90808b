"""Caps may change at any time: it never fails, and counts at once."""

import asyncio

import pytest

from loam_gateway.ledger.model import EVERYONE, Origin, Period, Policy, Scope
from loam_gateway.ledger.policies import set_policies
from loam_shared.errors import BudgetExceededError

from .conftest import granted, paid


async def test_a_cap_below_what_is_posted_and_held_shows_the_rest_as_overrun(customer, ledger):
    await ledger.set_policy(customer.cap(1000))
    await ledger.settle(granted(await ledger.hold(customer.request(300))), paid(300))
    hold = granted(await ledger.hold(customer.request(400)))

    await ledger.set_policy(customer.cap(500))
    assert (await customer.account()).overrun_nanos == 200
    with pytest.raises(BudgetExceededError) as refusal:
        await ledger.hold(customer.request(1))
    assert refusal.value.details["remainingUsd"] == "0"

    assert (await ledger.settle(hold, paid(150))).remaining_nanos == 50
    assert (await customer.account()).overrun_nanos == 0
    assert await ledger.verify() == []


async def test_a_raised_cap_gives_room_at_once(customer, ledger):
    await ledger.set_policy(customer.cap(10))
    await ledger.hold(customer.request(10))
    await ledger.set_policy(customer.cap(20))
    assert granted(await ledger.hold(customer.request(10))).remaining_nanos == 0


async def test_a_cap_that_is_taken_away_caps_no_more(customer, ledger):
    await ledger.set_policy(customer.cap(10))
    await ledger.hold(customer.request(10))
    await ledger.set_policy(customer.cap(None))
    assert granted(await ledger.hold(customer.request(10))).remaining_nanos is None


async def test_a_tenant_can_lower_its_cap_but_not_raise_it(customer, ledger):
    def own(nanos):
        return Policy(customer.name, Scope.TENANT, Period.DAY, nanos, origin=Origin.TENANT)

    await ledger.set_policy(customer.cap(100), own(60))
    assert granted(await ledger.hold(customer.request(0))).remaining_nanos == 60
    await ledger.set_policy(own(1000))
    assert granted(await ledger.hold(customer.request(0))).remaining_nanos == 100
    await ledger.set_policy(own(70), customer.cap(50))
    assert granted(await ledger.hold(customer.request(0))).remaining_nanos == 50


async def test_a_change_for_every_user_reaches_each_of_them_but_the_lower_of_two_counts(customer, ledger):
    await ledger.set_policy(customer.cap(30, Scope.USER, Period.MONTH, "ada"))
    for user in ("ada", "bob"):
        await ledger.hold(customer.request(10, user=user))
    await ledger.set_policy(customer.cap(50, Scope.USER, Period.MONTH, EVERYONE))
    remaining = [granted(await ledger.hold(customer.request(0, user=user))).remaining_nanos for user in ("ada", "bob")]
    assert remaining == [20, 40]


async def test_a_cap_may_come_before_the_tenant(customer, ledger):
    await ledger.set_policy(Policy("early", Scope.TENANT, Period.DAY, 5))
    await customer.pool.execute("INSERT INTO tenants (name, uid) VALUES ('early', 'uid')")
    await customer.pool.execute("INSERT INTO api_keys (tenant, key_id, name) VALUES ('early', 'backend', '')")
    with pytest.raises(BudgetExceededError):
        await ledger.hold(customer.request(6, tenant="early"))


async def test_caps_change_with_the_transaction_they_are_set_in(customer, ledger):
    await ledger.set_policy(customer.cap(10))
    async with customer.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await set_policies(connection, [customer.cap(0)])
        await transaction.rollback()
    assert granted(await ledger.hold(customer.request(10))).nanos == 10


async def test_an_account_that_is_made_while_its_policy_changes_follows_it(customer, open_ledger):
    """The change and the account's first use cannot pass each other by unseen."""
    ledgers = [await open_ledger() for _ in range(2)]
    for number in range(40):
        user = f"user-{number}"
        await asyncio.gather(
            ledgers[0].set_policy(customer.cap(number + 1, Scope.USER, Period.MONTH, EVERYONE)),
            ledgers[1].hold(customer.request(0, user=user)),
        )
        assert (await customer.account(Scope.USER, Period.MONTH, user)).cap_nanos == number + 1


async def test_caps_that_change_under_load_deadlock_nobody(customer, open_ledger):
    ledgers = [await open_ledger() for _ in range(3)]
    spending = True

    async def spend(ledger, user):
        while spending:
            try:
                hold = granted(await ledger.hold(customer.request(5, user=user)))
            except BudgetExceededError:
                continue
            await ledger.settle(hold, paid(1))

    spenders = [asyncio.create_task(spend(ledgers[n % 3], f"user-{n}")) for n in range(12)]
    for nanos in (50, 10**6, 20, 10**7) * 5:
        await ledgers[0].set_policy(customer.cap(nanos), customer.cap(nanos, Scope.USER, Period.MONTH, EVERYONE))
    spending = False
    await asyncio.gather(*spenders)
    assert (await customer.account()).held_nanos == 0
    assert await ledgers[0].verify() == []


async def test_every_change_of_a_cap_is_in_the_audit_log_once(customer, ledger):
    for _ in range(3):
        await ledger.set_policy(customer.cap(10), actor="ada")
    await ledger.set_policy(customer.cap(None), actor="ada")
    rows = await customer.pool.fetch(
        "SELECT actor, action, details->>'nanos' AS nanos FROM audit_log WHERE tenant = $1 ORDER BY id", customer.name
    )
    assert [tuple(row) for row in rows] == [("ada", "budget.set", "10"), ("ada", "budget.set", None)]
