"""The same Idempotency-Key is worked on once, and answered alike for a day."""

import asyncio
from datetime import timedelta

import pytest

from loam_gateway.ledger.model import Hold, IdempotencyClaim, Outcome, Replay, Settlement
from loam_shared.errors import BudgetExceededError, IdempotencyConflictError

from .conftest import granted, paid

CLAIM = IdempotencyClaim("once", b"hash of the body")


async def test_an_answered_request_is_replayed_and_charged_once(customer, ledger):
    hold = granted(await ledger.hold(customer.request(100, idempotency=CLAIM)))
    await ledger.settle(hold, paid(40, answer=b"sealed"))
    assert await ledger.hold(customer.request(100, idempotency=CLAIM)) == Replay(b"sealed")
    account = await customer.account()
    assert (account.held_nanos, account.posted_nanos) == (0, 40)


async def test_a_replay_needs_no_budget(customer, ledger):
    await ledger.set_policy(customer.cap(40))
    hold = granted(await ledger.hold(customer.request(40, idempotency=CLAIM)))
    await ledger.settle(hold, paid(40, answer=b"sealed"))
    assert isinstance(await ledger.hold(customer.request(40, idempotency=CLAIM)), Replay)


async def test_of_many_at_once_one_runs_and_the_others_are_told_so(customer, open_ledger):
    ledgers = [await open_ledger() for _ in range(3)]
    wishes = (ledgers[n % 3].hold(customer.request(100, idempotency=CLAIM)) for n in range(30))
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(outcome, Hold) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, IdempotencyConflictError) for outcome in outcomes) == 29
    assert (await customer.account()).held_nanos == 100


async def test_another_body_with_the_same_key_is_a_conflict(customer, ledger):
    hold = granted(await ledger.hold(customer.request(100, idempotency=CLAIM)))
    await ledger.settle(hold, paid(40, answer=b"sealed"))
    with pytest.raises(IdempotencyConflictError, match="another body"):
        await ledger.hold(customer.request(100, idempotency=IdempotencyClaim("once", b"another hash")))


async def test_another_key_of_the_tenant_has_claims_of_its_own(customer, ledger):
    await customer.pool.execute(
        "INSERT INTO api_keys (tenant, key_id, name) VALUES ($1, 'other', 'other')", customer.name
    )
    await ledger.hold(customer.request(1, idempotency=CLAIM))
    assert isinstance(await ledger.hold(customer.request(1, key_id="other", idempotency=CLAIM)), Hold)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.RELEASED])
async def test_a_request_that_failed_may_be_tried_again_with_the_same_key(customer, ledger, outcome):
    hold = granted(await ledger.hold(customer.request(100, idempotency=CLAIM)))
    await ledger.settle(hold, Settlement(0, outcome=outcome))
    assert isinstance(await ledger.hold(customer.request(100, idempotency=CLAIM)), Hold)


async def test_a_request_whose_gateway_died_may_be_tried_again_with_the_same_key(customer, ledger):
    await ledger.hold(customer.request(100, lifetime_seconds=0, idempotency=CLAIM))
    await ledger.reap()
    assert isinstance(await ledger.hold(customer.request(100, idempotency=CLAIM)), Hold)


async def test_a_request_that_was_refused_for_money_claims_nothing(customer, ledger):
    await ledger.set_policy(customer.cap(10))
    with pytest.raises(BudgetExceededError):
        await ledger.hold(customer.request(100, idempotency=CLAIM))
    await ledger.set_policy(customer.cap(100))
    assert isinstance(await ledger.hold(customer.request(100, idempotency=CLAIM)), Hold)


async def test_an_answer_is_forgotten_after_a_day(customer, ledger, open_ledger):
    hold = granted(await ledger.hold(customer.request(100, idempotency=CLAIM)))
    await ledger.settle(hold, paid(40, answer=b"sealed"))
    nearly = await open_ledger(ahead=timedelta(hours=23, minutes=59))
    assert isinstance(await nearly.hold(customer.request(100, idempotency=CLAIM)), Replay)
    after = await open_ledger(ahead=timedelta(hours=24, minutes=1))
    assert isinstance(await after.hold(customer.request(100, idempotency=CLAIM)), Hold)
