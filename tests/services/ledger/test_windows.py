"""Windows are calendar days and months in UTC, by the database's clock; nothing is ever reset in place."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from loam_gateway.ledger.accounts import window
from loam_gateway.ledger.model import Hold, Period, Scope
from loam_shared.errors import BudgetExceededError

from .conftest import granted, paid


def until(moment: datetime) -> timedelta:
    """How far ahead of the database's clock `moment` lies."""
    return moment - datetime.now(UTC)


def next_midnight() -> datetime:
    """When the day after tomorrow begins: never now, whenever the test runs."""
    return window(Period.DAY, datetime.now(UTC) + timedelta(days=1))[1]


@pytest.mark.parametrize(
    ("period", "moment", "start", "end"),
    [
        (Period.DAY, "2026-02-28T23:59:59.999999+00:00", "2026-02-28", "2026-03-01"),
        (Period.DAY, "2026-03-01T00:30:00+02:00", "2026-02-28", "2026-03-01"),
        (Period.MONTH, "2026-12-31T23:59:59+00:00", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "2028-02-29T00:00:00+00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_a_window_is_a_calendar_day_or_month_in_utc(period, moment, start, end):
    expected = tuple(datetime.fromisoformat(f"{day}T00:00:00+00:00") for day in (start, end))
    assert window(period, datetime.fromisoformat(moment)) == expected


async def test_a_new_day_has_its_whole_budget_again_and_the_month_goes_on(customer, open_ledger):
    midnight = next_midnight()
    evening = await open_ledger(ahead=until(midnight) - timedelta(minutes=5))
    morning = await open_ledger(ahead=until(midnight) + timedelta(minutes=5))
    await evening.set_policy(customer.cap(100), customer.cap(150, period=Period.MONTH))
    await evening.settle(granted(await evening.hold(customer.request(100))), paid(100))
    with pytest.raises(BudgetExceededError):
        await evening.hold(customer.request(1))
    if midnight.day == 1:
        pytest.skip("the month turns with the day")
    assert granted(await morning.hold(customer.request(50))).remaining_nanos == 0
    with pytest.raises(BudgetExceededError) as refusal:
        await morning.hold(customer.request(1))
    assert refusal.value.details["cap"] == "tenantMonthly"


async def test_a_hold_settles_in_the_windows_that_it_was_taken_in(customer, open_ledger):
    midnight = next_midnight()
    evening = await open_ledger(ahead=until(midnight) - timedelta(minutes=1))
    morning = await open_ledger(ahead=until(midnight) + timedelta(minutes=1))
    await evening.set_policy(customer.cap(100))
    hold = granted(await evening.hold(customer.request(60, lifetime_seconds=600)))
    await morning.hold(customer.request(90))
    await morning.settle(hold, paid(60))
    rows = await customer.pool.fetch(
        "SELECT held, posted FROM accounts WHERE tenant = $1 AND scope = 'tenant' AND period = 'day' "
        "ORDER BY window_start",
        customer.name,
    )
    assert [tuple(row) for row in rows] == [(0, 60), (90, 0)]
    assert await morning.verify() == []


@pytest.mark.parametrize("period", [Period.DAY, Period.MONTH])
async def test_a_window_that_turns_under_load_neither_loses_nor_gains_budget(customer, open_ledger, period):
    turn = window(period, datetime.now(UTC) + timedelta(days=1))[1]
    ledgers = [await open_ledger(ahead=until(turn) - timedelta(seconds=0.5)) for _ in range(2)]
    await ledgers[0].set_policy(customer.cap(1000, period=period))

    refusals = []

    async def spend(ledger):
        granted_in = []
        while datetime.now(UTC) + ledger._clock.offset < turn + timedelta(seconds=0.5):
            asked_at = datetime.now(UTC) + ledger._clock.offset
            try:
                hold = granted(await ledger.hold(customer.request(10)))
            except BudgetExceededError as refusal:
                refusals.append((asked_at, datetime.fromisoformat(refusal.details["resetsAt"])))
                continue
            granted_in.append((await ledger.settle(hold, paid(10)), hold.held_at)[1])
        return granted_in

    taken = [
        moment for moments in await asyncio.gather(*(spend(ledgers[n % 2]) for n in range(16))) for moment in moments
    ]
    assert sum(moment < turn for moment in taken) == 100
    assert sum(moment >= turn for moment in taken) == 100
    assert all(asked_at < ends for asked_at, ends in refusals)
    entries = await customer.entries()
    assert sorted(entry["held_at"] for entry in entries) == sorted(taken)
    assert await ledgers[0].verify() == []


async def test_nobody_is_refused_by_a_window_that_is_over_where_a_clock_is_behind(customer, open_ledger):
    midnight = next_midnight()
    evening = await open_ledger(ahead=until(midnight) - timedelta(minutes=5))
    morning = await open_ledger(ahead=until(midnight) + timedelta(seconds=5))
    await evening.set_policy(customer.cap(100))
    await evening.settle(granted(await evening.hold(customer.request(100))), paid(100))
    await morning.hold(customer.request(0))
    morning._clock.set(midnight - timedelta(seconds=1))
    hold = granted(await morning.hold(customer.request(100)))
    assert (hold.remaining_nanos, hold.held_at >= midnight) == (0, True)


async def test_the_months_to_come_are_ready_before_they_begin(customer, open_ledger):
    for months in (1, 3, 14):
        ledger = await open_ledger(ahead=timedelta(days=31 * months))
        hold = granted(await ledger.hold(customer.request(1)))
        await ledger.settle(hold, paid(1))
    assert len(await customer.entries()) == 3


async def test_what_is_older_than_the_retention_time_goes_with_its_accounts(customer, open_ledger):
    now = await open_ledger()
    await now.settle(granted(await now.hold(customer.request(1, run="r"))), paid(1))
    later = await open_ledger(ahead=timedelta(days=31 * 5), retention_months=6)
    await later.settle(granted(await later.hold(customer.request(2))), paid(2))
    assert [entry["cost"] for entry in await customer.entries()] == [1, 2]
    much_later = await open_ledger(ahead=timedelta(days=31 * 10), retention_months=6)
    assert [entry["cost"] for entry in await customer.entries()] == [2]
    assert (await customer.account(Scope.TENANT, Period.MONTH)).posted_nanos == 2
    assert await much_later.verify() == []


async def test_a_gateway_whose_clock_stood_still_asks_the_database_again(customer, ledger):
    """A laptop that slept: the process's own clock did not go on."""
    await ledger.hold(customer.request(1))
    ledger._clock.set(datetime.now(UTC) - timedelta(days=40))
    hold = await ledger.hold(customer.request(1))
    assert isinstance(hold, Hold)
    assert abs(hold.held_at - datetime.now(UTC)) < timedelta(seconds=5)
