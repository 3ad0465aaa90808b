"""Every metered thing is one immutable entry, posted once, in the windows that it was held in."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from loam_gateway.ledger.model import Kind, Outcome, Period, Posting, Price, Scope, Settlement, Tokens
from loam_shared.errors import BudgetExceededError, ConflictError, InvalidRequestError, NotFoundError, UnavailableError

from .conftest import granted, paid

PRICE = Price(input=250_000_000, output=1_250_000_000, cache_read=30_000_000, cache_write=300_000_000)


async def test_a_settlement_posts_what_was_used_and_frees_the_rest(customer, ledger):
    await ledger.set_policy(customer.cap(1000))
    hold = granted(await ledger.hold(customer.request(600)))
    assert await ledger.settle(hold, paid(250)) == Posting(cost_nanos=250, markup_nanos=0, remaining_nanos=750)
    account = await customer.account()
    assert (account.held_nanos, account.posted_nanos) == (0, 250)


async def test_an_entry_says_who_what_where_and_at_which_price(customer, ledger):
    tags = {"user": "ada", "pipeline": "handbook", "agent": "researcher", "run": "run-1"}
    request = customer.request(2_000_000, kind=Kind.STREAM, root_request_id="client-chosen", **tags)
    tokens = Tokens(input=1000, output=200, cache_read=50, cache_write=7)
    settlement = Settlement(
        PRICE.cost(tokens), tokens, PRICE, provider="Bedrock", region="us-west-2", model="claude-sonnet", saving_nanos=5
    )
    hold = granted(await ledger.hold(request))
    await ledger.settle(hold, settlement)
    [entry] = await customer.entries()
    expected = {
        "request_id": request.request_id, "held_at": hold.held_at, "kind": "stream", "outcome": "complete",
        "estimated": False, "key_id": "backend", "user_id": "ada", "run": "run-1", "pipeline": "handbook",
        "agent": "researcher", "root_request_id": "client-chosen", "model": "claude-sonnet", "provider": "Bedrock",
        "region": "us-west-2", "input_tokens": 1000, "output_tokens": 200, "cache_read_tokens": 50,
        "cache_write_tokens": 7, "input_price": 250_000_000, "output_price": 1_250_000_000, "held": 2_000_000,
        "cost": 503_600, "saving": 5,
    }  # fmt: skip
    assert {name: entry[name] for name in expected} == expected
    assert len(entry["accounts"]) == 7


@pytest.mark.parametrize(
    ("tokens", "nanos"),
    [
        (Tokens(), 0),
        (Tokens(input=1), 1),  # a third of a nano-dollar
        (Tokens(input=3), 1),
        (Tokens(input=4), 2),
        (Tokens(input=1, output=1), 1),  # rounded once, not once per class
        (Tokens(queries=1), 2_000_000),
    ],
)
def test_a_cost_is_rounded_up_once(tokens, nanos):
    assert Price(input=333_333, output=333_333, queries=2_000_000 * 1_000_000).cost(tokens) == nanos


async def test_settling_again_posts_nothing_more(customer, ledger):
    hold = granted(await ledger.hold(customer.request(100)))
    postings = await asyncio.gather(*(ledger.settle(hold, paid(40)) for _ in range(5)))
    postings.append(await ledger.settle(hold, paid(70)))
    assert [posting.cost_nanos for posting in postings] == [40] * 6
    assert (await customer.account()).posted_nanos == 40
    assert len(await customer.entries()) == 1


async def test_a_hold_that_was_never_taken_cannot_be_settled(customer, ledger):
    hold = granted(await ledger.hold(customer.request(100)))
    with pytest.raises(UnavailableError, match="does not know"):
        await ledger.settle(replace(hold, request=customer.request(100)), paid(1))
    assert await customer.entries() == []


async def test_a_cost_above_the_hold_is_posted_and_shows_as_overrun(customer, ledger):
    await ledger.set_policy(customer.cap(100))
    posting = await ledger.settle(granted(await ledger.hold(customer.request(90))), paid(130))
    assert (posting.cost_nanos, posting.remaining_nanos) == (130, 0)
    assert (await customer.account()).overrun_nanos == 30
    with pytest.raises(BudgetExceededError):
        await ledger.hold(customer.request(1))
    assert await ledger.verify() == []


async def test_markup_lies_outside_the_caps(customer, ledger):
    await ledger.set_policy(customer.cap(100))
    posting = await ledger.settle(granted(await ledger.hold(customer.request(100, markup_ppm=20_001))), paid(100))
    assert (posting.markup_nanos, posting.remaining_nanos) == (3, 0)
    assert (await customer.account()).posted_nanos == 100


async def test_a_cache_hit_is_an_entry_that_costs_nothing_even_without_budget(customer, ledger):
    await ledger.set_policy(customer.cap(0))
    tokens = Tokens(input=1000)
    hit = Settlement(0, tokens, PRICE, saving_nanos=PRICE.cost(tokens))
    await ledger.record(customer.request(kind=Kind.CACHE_HIT), hit)
    [entry] = await customer.entries()
    assert (entry["kind"], entry["cost"], entry["saving"]) == ("cache_hit", 0, 250_000)
    assert await ledger.verify() == []


async def test_a_hold_that_expires_is_posted_whole_and_marked_estimated(customer, ledger):
    await ledger.hold(customer.request(100, lifetime_seconds=0, markup_ppm=10_000))
    assert await ledger.reap() == 1
    [entry] = await customer.entries()
    assert (entry["cost"], entry["markup"], entry["estimated"], entry["outcome"]) == (100, 1, True, Outcome.EXPIRED)
    account = await customer.account()
    assert (account.held_nanos, account.posted_nanos) == (0, 100)


async def test_the_reaper_leaves_alone_what_is_alive_beside_what_expired(customer, ledger):
    lifetimes = [0, 600, 0, 600]
    holds = [await ledger.hold(customer.request(100, lifetime_seconds=seconds)) for seconds in lifetimes]
    assert await ledger.reap() == 2
    account = await customer.account()
    assert (account.held_nanos, account.posted_nanos) == (200, 200)
    assert [(await ledger.settle(granted(hold), paid(1))).cost_nanos for hold in holds] == [100, 1, 100, 1]


async def test_a_hold_that_is_renewed_while_the_reaper_waits_for_its_accounts_lives_on(customer, ledger, open_ledger):
    reaper = await open_ledger()
    hold = granted(await ledger.hold(customer.request(100, lifetime_seconds=0)))
    async with customer.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM accounts WHERE tenant = $1 FOR UPDATE", customer.name)
        reaping = asyncio.create_task(reaper.reap())
        async with asyncio.timeout(5):
            while not await customer.pool.fetchval(_REAPER_WAITS):  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.01)
        await ledger.renew(replace(hold, request=replace(hold.request, lifetime_seconds=600)))
    assert await reaping == 0
    assert (await ledger.settle(hold, paid(1))).cost_nanos == 1


_REAPER_WAITS = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND query LIKE '%ledger_reap%' AND datname = current_database()
)
"""


async def test_a_settlement_that_comes_after_the_reaper_is_told_what_was_posted(customer, ledger):
    hold = granted(await ledger.hold(customer.request(100, lifetime_seconds=0)))
    await ledger.reap()
    assert (await ledger.settle(hold, paid(10))).cost_nanos == 100
    assert (await customer.account()).posted_nanos == 100


async def test_of_settler_and_reapers_exactly_one_posts(customer, open_ledger):
    settler, *reapers = [await open_ledger() for _ in range(3)]
    for _ in range(15):
        holds = await asyncio.gather(*(settler.hold(customer.request(10, lifetime_seconds=0)) for _ in range(20)))
        await asyncio.gather(
            *(settler.settle(granted(hold), paid(3)) for hold in holds), *(reaper.reap() for reaper in reapers)
        )
    entries = await customer.entries()
    assert len(entries) == 300
    account = await customer.account()
    assert (account.held_nanos, account.posted_nanos) == (0, sum(entry["cost"] for entry in entries))
    assert await settler.verify() == []


async def test_a_renewed_hold_outlives_its_first_deadline(customer, open_ledger):
    ledger, later = await open_ledger(), await open_ledger()
    hold = granted(await ledger.hold(customer.request(100, lifetime_seconds=0.3)))
    async with asyncio.timeout(5):
        for _ in range(10):
            await asyncio.sleep(0.06)
            await ledger.renew(hold)
            assert await later.reap() == 0
        await asyncio.sleep(0.35)
        assert await later.reap() == 1
    with pytest.raises(ConflictError):
        await ledger.renew(hold)


async def test_reaping_and_renewing_at_once_never_deadlock(customer, open_ledger):
    ledger, reaper = await open_ledger(), await open_ledger()
    holds = await asyncio.gather(*(ledger.hold(customer.request(1, lifetime_seconds=0.001)) for _ in range(200)))
    renewals = [ledger.renew(granted(hold)) for hold in holds]
    outcomes = await asyncio.gather(*renewals, *(reaper.reap() for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), ConflictError, int}
    await reaper.reap()


async def test_a_correction_is_one_more_entry_in_the_same_windows(customer, ledger):
    await ledger.set_policy(customer.cap(1000))
    hold = granted(await ledger.hold(customer.request(100, lifetime_seconds=0)))
    await ledger.reap()
    assert await ledger.correct(hold, -60, actor="ada", reason="the provider's bill says so") == 40
    assert (await customer.account()).posted_nanos == 40
    assert sorted(entry["cost"] for entry in await customer.entries()) == [-60, 100]
    with pytest.raises(InvalidRequestError, match="less than nothing"):
        await ledger.correct(hold, -41, actor="ada", reason="twice")
    assert await ledger.verify() == []


async def test_what_was_never_posted_cannot_be_corrected(customer, ledger):
    hold = granted(await ledger.hold(customer.request(100)))
    with pytest.raises(NotFoundError):
        await ledger.correct(hold, -1, actor="ada", reason="too early")


@pytest.mark.parametrize("table", ["entries", "audit_log"])
@pytest.mark.parametrize("change", ["UPDATE {} SET tenant = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
async def test_entries_and_audit_log_can_only_be_appended_to(customer, ledger, table, change):
    await ledger.set_policy(customer.cap(1))
    await ledger.record(customer.request(), Settlement(0))
    parts = [row[0] for row in await customer.pool.fetch(_PARTITIONS)] if table == "entries" else []
    for name in (table, *parts):
        if await customer.pool.fetchval(f"SELECT EXISTS (SELECT FROM {name})") or "TRUNCATE" in change:
            with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                await customer.pool.execute(change.format(name))


_PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'entries'::regclass"


async def test_usage_sums_the_entries_by_what_is_asked_for(customer, ledger):
    for user, nanos in (("ada", 10), ("bob", 20), ("ada", 30)):
        request = customer.request(nanos, user=user, markup_ppm=100_000)
        await ledger.settle(granted(await ledger.hold(request)), paid(nanos))
    released = granted(await ledger.hold(customer.request(50)))
    await ledger.settle(released, Settlement(0, outcome=Outcome.RELEASED))
    start, end = released.held_at.replace(hour=0, minute=0, second=0), released.held_at

    rows = await ledger.usage(customer.name, start, end, ("user", "model", "day"))
    assert [(row.group["user"], row.requests, row.cost_nanos, row.markup_nanos) for row in rows] == [
        ("ada", 2, 40, 4),
        ("bob", 1, 20, 2),
    ]
    [total] = await ledger.usage(customer.name, start, end)
    assert (total.requests, total.cost_nanos, total.tokens) == (3, 60, Tokens(input=60))
    assert await ledger.usage(customer.name, end, end) == [type(total)({}, 0, Tokens(), 0, 0, 0, 0, 0, 0)]
    with pytest.raises(InvalidRequestError, match="cannot group by shoe size"):
        await ledger.usage(customer.name, start, end, ("shoe size",))


@pytest.mark.parametrize(
    ("dimension", "groups"),
    [
        ("model", {"claude-haiku": 3, "titan": 1}),
        ("user", {"ada": 2, None: 2}),
        ("key", {"backend": 4}),
        ("pipeline", {"handbook": 1, None: 3}),
        ("agent", {"researcher": 1, None: 3}),
        ("run", {"run-1": 1, None: 3}),
        ("kind", {"completion": 2, "embedding": 1, "cache_hit": 1}),
        ("provider", {"": 1, "Bedrock": 3}),
    ],
)
async def test_usage_can_be_grouped_by_each_dimension(customer, ledger, dimension, groups):
    wishes = [
        {"user": "ada", "pipeline": "handbook"},
        {"user": "ada", "agent": "researcher", "run": "run-1", "byok": True},
        {"model": "titan", "kind": Kind.EMBEDDING},
    ]
    for wish in wishes:
        await ledger.settle(granted(await ledger.hold(customer.request(0, **wish))), Settlement(0, provider="Bedrock"))
    await ledger.record(customer.request(kind=Kind.CACHE_HIT), Settlement(0, saving_nanos=9))
    posted = await customer.entries()
    start, end = posted[0]["held_at"], posted[-1]["held_at"] + timedelta(microseconds=1)
    rows = await ledger.usage(customer.name, start, end, (dimension,))
    assert {row.group[dimension]: row.requests for row in rows} == groups
    assert [sum(getattr(row, name) for row in rows) for name in ("cached", "byok", "saving_nanos")] == [1, 1, 9]
    assert await ledger.usage(customer.name, start, end - timedelta(microseconds=1)) != []
    assert await ledger.usage("another", start, end, (dimension,)) == []


async def test_usage_by_day_falls_into_calendar_days(customer, ledger, open_ledger):
    tomorrow = await open_ledger(ahead=timedelta(days=1))
    for each in (ledger, tomorrow, tomorrow):
        await each.settle(granted(await each.hold(customer.request(1))), paid(1))
    posted = await customer.entries()
    rows = await ledger.usage(customer.name, posted[0]["held_at"], posted[-1]["held_at"] + timedelta(days=1), ("day",))
    days = [entry["held_at"].date().isoformat() for entry in posted]
    assert [(row.group["day"], row.requests) for row in rows] == sorted(Counter(days).items())


async def test_the_budget_shows_every_cap_before_and_after_the_first_request(customer, ledger):
    await ledger.set_policy(customer.cap(1000), customer.cap(300, Scope.KEY, Period.MONTH, "backend"))
    before = await ledger.budget(customer.name, "ada", "backend")
    assert [(balance.scope, balance.period, balance.cap_nanos) for balance in before] == [
        (Scope.TENANT, Period.MONTH, None),
        (Scope.TENANT, Period.DAY, 1000),
        (Scope.USER, Period.MONTH, None),
        (Scope.USER, Period.DAY, None),
        (Scope.KEY, Period.MONTH, 300),
        (Scope.KEY, Period.DAY, None),
    ]
    await ledger.hold(customer.request(100, user="ada"))
    after = await ledger.budget(customer.name, "ada", "backend")
    assert [balance.remaining_nanos for balance in after] == [None, 900, None, None, 200, None]


async def test_a_made_key_sees_the_caps_of_its_makers_too_and_is_held_by_them(customer, ledger):
    await customer.pool.execute(
        "INSERT INTO api_keys (tenant, key_id, name, made_by) "
        "VALUES ($1, 'child', '', 'backend'), ($1, 'kin', '', 'child')",
        customer.name,
    )
    await ledger.set_policy(customer.cap(100, Scope.KEY, Period.DAY, "backend"))
    await ledger.settle(granted(await ledger.hold(customer.request(60, key_id="kin"))), paid(60))
    shown = await ledger.budget(customer.name, None, "kin")
    assert [(balance.subject, balance.period, balance.posted_nanos) for balance in shown if balance.subject] == [
        (key_id, period, 60) for key_id in ("kin", "child", "backend") for period in (Period.MONTH, Period.DAY)
    ]
    for key_id in ("kin", "child", "backend"):
        with pytest.raises(BudgetExceededError, match=r"the daily budget of the key backend has 0\.00000004 USD left"):
            await ledger.hold(customer.request(41, key_id=key_id))
    [entry] = await customer.entries()
    assert (entry["key_id"], len(entry["accounts"])) == ("kin", 8)
