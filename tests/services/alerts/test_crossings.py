"""Each percentage of each cap is told once in each window, whatever happens to the cap."""

import asyncio
from datetime import timedelta

import pytest

from loam_gateway.adapters.postgres import Pool
from loam_gateway.alerts import crossings
from loam_gateway.ledger.model import Period, Policy, Scope

from .conftest import Customer

USD = 10**9
MAIL = {"emails": ["ops@acme.example"]}


async def test_nothing_is_told_below_the_first_percentage_and_every_one_is_told_when_it_is_reached(
    pool: Pool, customer: Customer
) -> None:
    await customer.put(monthlyUsd="10", alertPercents=[50, 80, 100], alerts=MAIL)
    told = []
    for spent in (499, 1, 299, 1, 199, 1):
        await customer.spend(spent * USD // 100)
        await crossings.look(pool)
        told.append([percent for _, _, percent, _ in await customer.alerts()])
    assert told == [[], [50], [50], [50, 80], [50, 80], [50, 80, 100]]


async def test_looking_again_raises_nothing_again_not_even_many_at_once(pool: Pool, customer: Customer) -> None:
    await customer.put(monthlyUsd="10", alerts=MAIL)
    await customer.spend(9 * USD)
    raised = await asyncio.gather(*(crossings.look(pool) for _ in range(12)))
    assert sum(raised) == 2
    assert await crossings.look(pool) == 0
    assert len(await customer.deliveries()) == 2


async def test_daily_monthly_and_each_users_caps_are_told_apart(pool: Pool, customer: Customer) -> None:
    await customer.put(monthlyUsd="100", dailyUsd="10", perUserMonthlyUsd="4", alertPercents=[50])
    await customer.spend(3 * USD, user="ann")
    await customer.spend(1 * USD, user="bob")
    await customer.spend(1 * USD)
    await crossings.look(pool)
    assert await customer.alerts() == [("tenant", "day", 50, 10 * USD), ("user", "month", 50, 4 * USD)]


async def test_the_caps_of_keys_are_told_of_as_well(pool: Pool, customer: Customer) -> None:
    await customer.put(monthlyUsd="100", alertPercents=[50])
    await customer.ledger.set_policy(Policy(customer.name, Scope.KEY, Period.MONTH, 4 * USD, subject="backend"))
    await customer.spend(2 * USD)
    await crossings.look(pool)
    assert await customer.alerts() == [("key", "month", 50, 4 * USD)]


async def test_a_raised_cap_is_told_of_anew_and_one_that_goes_back_and_forth_is_not(
    pool: Pool, customer: Customer
) -> None:
    async def cap(usd: str) -> None:
        await customer.put(monthlyUsd=usd, alertPercents=[80])
        await crossings.look(pool)

    await cap("10")
    await customer.spend(8 * USD)
    for usd in ("10", "100", "10", "100", "10"):
        await cap(usd)
    assert await customer.alerts() == [("tenant", "month", 80, 10 * USD)]
    await cap("100")
    await customer.spend(72 * USD)
    await cap("100")
    assert await customer.alerts() == [("tenant", "month", 80, 10 * USD), ("tenant", "month", 80, 100 * USD)]


async def test_a_cap_that_is_moved_all_the_time_floods_nobody(
    pool: Pool, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossings, "MOST_PER_ACCOUNT", 5)
    await customer.put(monthlyUsd="10", alertPercents=[1])
    await customer.spend(5 * USD)
    for usd in range(10, 20):
        await customer.put(monthlyUsd=str(usd), alertPercents=[1])
        await crossings.look(pool)
    assert len(await customer.alerts()) == 5


async def test_what_is_spent_in_the_last_moment_of_a_window_is_told_after_its_end(
    pool: Pool, customer: Customer
) -> None:
    await customer.put(dailyUsd="10", alertPercents=[50])
    await customer.spend(5 * USD)
    end = await pool.fetchval(
        "SELECT window_end - now() FROM accounts WHERE tenant = $1 AND period = 'day'", customer.name
    )
    await crossings.look(pool, end + timedelta(hours=2))
    assert await customer.alerts() == []
    await crossings.look(pool, end + timedelta(minutes=5))
    assert await customer.alerts() == [("tenant", "day", 50, 10 * USD)]


async def test_a_cap_of_nothing_or_no_cap_is_never_told_of(pool: Pool, customer: Customer) -> None:
    await customer.put(dailyUsd="0", alertPercents=[1])
    await crossings.look(pool)
    await customer.put(alertPercents=[1])
    await customer.spend(5 * USD)
    await crossings.look(pool)
    assert await customer.alerts() == []


async def test_alerts_are_forgotten_long_after_their_window(pool: Pool, customer: Customer) -> None:
    await customer.put(dailyUsd="1", alertPercents=[50], alerts=MAIL)
    await customer.spend(USD)
    await crossings.look(pool)
    await crossings.forget(pool, timedelta(days=39))
    assert len(await customer.deliveries()) == 1
    await crossings.forget(pool, timedelta(days=42))
    assert await customer.deliveries() == []
