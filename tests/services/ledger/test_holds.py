"""Budgets are hard, and refusals say why."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from loam_gateway.ledger.ledger import MAX_HOLD_NANOS
from loam_gateway.ledger.model import EVERYONE, Hold, Period, Scope
from loam_shared.errors import BudgetExceededError, ForbiddenError, InvalidApiKeyError, InvalidRequestError

from .conftest import granted, paid


async def test_a_hundred_at_once_on_a_budget_for_ten_spend_exactly_ten(customer, open_ledger):
    ledgers = [await open_ledger() for _ in range(4)]
    await ledgers[0].set_policy(customer.cap(1000))

    async def spend(number):
        ledger = ledgers[number % 4]
        hold = await ledger.hold(customer.request(100))
        return await ledger.settle(hold, paid(100))

    outcomes = await asyncio.gather(*(spend(number) for number in range(100)), return_exceptions=True)

    assert sum(isinstance(outcome, BudgetExceededError) for outcome in outcomes) == 90
    account = await customer.account()
    assert (account.posted_nanos, account.held_nanos, account.overrun_nanos) == (1000, 0, 0)
    assert await ledgers[0].verify() == []


async def test_holds_that_are_open_count_against_the_cap_of_every_gateway(customer, open_ledger):
    one, other = await open_ledger(), await open_ledger()
    await one.set_policy(customer.cap(100))
    hold = granted(await one.hold(customer.request(60)))
    with pytest.raises(BudgetExceededError):
        await other.hold(customer.request(60))
    await one.settle(hold, paid(10))
    assert granted(await other.hold(customer.request(60))).remaining_nanos == 30


async def test_a_refusal_names_the_cap_what_is_left_and_when_it_starts_anew(customer, ledger):
    await ledger.set_policy(customer.cap(2_000_000_000))
    await ledger.settle(granted(await ledger.hold(customer.request(500_000_000))), paid(500_000_000))
    with pytest.raises(BudgetExceededError, match=r"the daily budget of the tenant has 1\.5 USD left") as refusal:
        await ledger.hold(customer.request(1_500_000_001))
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    assert refusal.value.details == {
        "cap": "tenantDaily",
        "remainingUsd": "1.5",
        "resetsAt": f"{tomorrow.isoformat()}T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("scope", "period", "subject", "named"),
    [
        (Scope.TENANT, Period.MONTH, "", "tenantMonthly"),
        (Scope.USER, Period.MONTH, EVERYONE, "userMonthly"),
        (Scope.USER, Period.MONTH, "ada", "userMonthly"),
        (Scope.KEY, Period.MONTH, "backend", "keyMonthly"),
    ],
)
async def test_every_kind_of_cap_is_hard_and_takes_all_or_nothing(customer, ledger, scope, period, subject, named):
    await ledger.set_policy(customer.cap(10_000), customer.cap(100, scope, period, subject))
    with pytest.raises(BudgetExceededError) as refusal:
        await ledger.hold(customer.request(101, user="ada"))
    assert refusal.value.details["cap"] == named
    assert (await customer.account()).held_nanos == 0
    assert granted(await ledger.hold(customer.request(100, user="ada"))).remaining_nanos == 0


async def test_one_user_at_its_cap_leaves_the_others_theirs(customer, ledger):
    await ledger.set_policy(customer.cap(100, Scope.USER, Period.MONTH, EVERYONE))
    await ledger.hold(customer.request(100, user="ada"))
    assert granted(await ledger.hold(customer.request(100, user="bob"))).nanos == 100


async def test_a_run_is_capped_over_all_of_its_requests(customer, ledger):
    step = {"run": "run-1", "run_cap_nanos": 250}
    for _ in range(2):
        await ledger.settle(granted(await ledger.hold(customer.request(100, **step))), paid(100))
    with pytest.raises(BudgetExceededError, match="the total budget of the run run-1") as refusal:
        await ledger.hold(customer.request(100, **step))
    assert refusal.value.details["resetsAt"] is None


async def test_the_output_is_clamped_to_what_the_headroom_covers(customer, ledger):
    await ledger.set_policy(customer.cap(1000))
    hold = granted(
        await ledger.hold(
            customer.request(100, output_nanos_per_million=7_000_000, max_output_tokens=4096, min_output_tokens=16)
        )
    )
    assert (hold.max_output_tokens, hold.nanos, hold.remaining_nanos) == (128, 996, 4)


async def test_what_would_be_clamped_below_the_useful_minimum_is_refused(customer, ledger):
    await ledger.set_policy(customer.cap(1000))
    wish = {"output_nanos_per_million": 7_000_000, "max_output_tokens": 4096}
    with pytest.raises(BudgetExceededError):
        await ledger.hold(customer.request(100, min_output_tokens=129, **wish))
    assert granted(await ledger.hold(customer.request(100, min_output_tokens=128, **wish))).max_output_tokens == 128


async def test_a_clamped_hold_is_rounded_up_and_still_fits(customer, ledger):
    await ledger.set_policy(customer.cap(10))
    hold = granted(await ledger.hold(customer.request(0, output_nanos_per_million=1_300_000, max_output_tokens=100)))
    assert (hold.max_output_tokens, hold.nanos) == (7, 10)


async def test_what_costs_the_platform_nothing_is_never_refused_for_money(customer, ledger):
    await ledger.set_policy(customer.cap(0))
    hold = granted(await ledger.hold(customer.request(0, max_output_tokens=4096, min_output_tokens=16)))
    assert hold.max_output_tokens == 4096


async def test_without_caps_nothing_is_refused_and_everything_counted(customer, ledger):
    hold = granted(await ledger.hold(customer.request(10**12)))
    assert hold.remaining_nanos is None
    await ledger.settle(hold, paid(10**12))
    assert (await customer.account()).posted_nanos == 10**12


async def test_what_was_spent_before_a_cap_was_set_counts_under_it(customer, ledger):
    await ledger.settle(granted(await ledger.hold(customer.request(80))), paid(80))
    await ledger.set_policy(customer.cap(100))
    with pytest.raises(BudgetExceededError):
        await ledger.hold(customer.request(21))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("UPDATE tenants SET suspended = true WHERE name = $1", ForbiddenError, "suspended"),
        ("UPDATE tenants SET active = false WHERE name = $1", ForbiddenError, "does not exist any more"),
        ("UPDATE api_keys SET revoked_at = now() WHERE tenant = $1", InvalidApiKeyError, "revoked or expired"),
        ("UPDATE api_keys SET expires_at = now() WHERE tenant = $1", InvalidApiKeyError, "revoked or expired"),
        ("DELETE FROM api_keys WHERE tenant = $1", InvalidApiKeyError, "revoked or expired"),
        ("DELETE FROM tenants WHERE name = $1", ForbiddenError, "does not exist any more"),
    ],
)
async def test_a_tenant_or_key_that_may_not_spend_is_refused_at_once(customer, ledger, change, error, message):
    await ledger.hold(customer.request(1))
    await customer.pool.execute(change, customer.name)
    with pytest.raises(error, match=message):
        await ledger.hold(customer.request(1))


async def test_a_tenant_that_was_never_there_gets_no_accounts(customer, ledger):
    with pytest.raises(ForbiddenError):
        await ledger.hold(customer.request(1, tenant="nobody"))
    assert await customer.pool.fetchval("SELECT count(*) FROM accounts WHERE tenant = 'nobody'") == 0


@pytest.mark.parametrize("nanos", [-1, MAX_HOLD_NANOS + 1])
async def test_an_amount_that_cannot_be_is_refused_before_the_database_sees_it(customer, ledger, nanos):
    with pytest.raises(InvalidRequestError):
        await ledger.hold(customer.request(nanos))


async def test_a_caller_that_goes_away_leaves_nothing_held(customer, ledger):
    """Cancelled at every stage: before the batch, while it is in flight, and when its answer has just come."""
    await ledger.hold(customer.request(0))
    for turns in range(60):
        caller = asyncio.create_task(ledger.hold(customer.request(100)))
        for _ in range(turns % 6):
            await asyncio.sleep(0 if turns < 30 else 0.0002 * turns)
        caller.cancel()
        outcome = (await asyncio.gather(caller, return_exceptions=True))[0]
        if isinstance(outcome, Hold):
            await ledger.settle(outcome, paid(0))
    await ledger.close()
    account = await customer.account()
    assert (account.held_nanos, account.posted_nanos) == (0, 0)


async def test_a_request_that_the_database_refuses_does_not_take_its_neighbours_with_it(customer, ledger):
    await ledger.hold(customer.request(0))
    poisoned = customer.request(1, root_request_id="a NUL is no text: \0")
    outcomes = await asyncio.gather(
        ledger.hold(customer.request(1)),
        ledger.hold(poisoned),
        ledger.hold(customer.request(1)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Hold) for outcome in outcomes] == [True, False, True]
    assert (await customer.account()).held_nanos == 2


async def test_a_hold_that_was_admitted_by_mistake_is_refused_by_the_database_itself(customer, ledger):
    await ledger.set_policy(customer.cap(100))
    await ledger.hold(customer.request(60))
    async with customer.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        ids = await connection.fetchval(
            "SELECT array_agg(id ORDER BY id) FROM accounts WHERE tenant = $1", customer.name
        )
        await connection.execute("SELECT ledger_move($1, NULL, NULL, $2)", ids, [40] * len(ids))
        with pytest.raises(asyncpg.CheckViolationError, match="accounts_within_cap"):
            await connection.execute("SELECT ledger_move($1, NULL, NULL, $2)", ids, [1] * len(ids))
        await transaction.rollback()
    assert (await customer.account()).held_nanos == 60
