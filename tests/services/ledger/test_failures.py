"""Whatever breaks, and wherever it breaks: nothing is charged twice, nothing above the cap, and nothing stays held."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from loam_gateway.ledger.model import Hold, Outcome
from loam_shared.errors import BudgetExceededError, UnavailableError

from ._proxy import Wire
from .conftest import granted, paid

_WORKER = Path(__file__).with_name("_worker.py")


@contextlib.asynccontextmanager
async def worker(url, tenant, task):
    """A gateway's process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(_WORKER), url, tenant, task),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_three_processes_spend_one_budget_to_the_last_nano_and_no_further(customer, ledger, database_url):
    await ledger.set_policy(customer.cap(9000))
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(worker(database_url, customer.name, "spend")) for _ in range(3)]
        for each in workers:
            assert await each.stdout.readline() == b"ready\n"
        for each in workers:
            each.stdin.write(b"go\n")
        spent = [int(await each.stdout.readline()) for each in workers]
    account = await customer.account()
    # A hold takes 10 and costs 9, so the last 9 cannot be held.
    assert 9000 - 10 < account.posted_nanos <= 9000
    assert (account.posted_nanos, account.held_nanos) == (sum(spent), 0)
    assert min(spent) > 0
    assert await ledger.verify() == []


async def test_a_killed_gateway_leaves_its_holds_to_expire_and_they_are_posted_whole(customer, ledger, database_url):
    await ledger.set_policy(customer.cap(35))
    async with worker(database_url, customer.name, "hold") as process:
        assert await process.stdout.readline() == b"held\n"
        with pytest.raises(BudgetExceededError):
            await ledger.hold(customer.request(1))
        process.kill()
        await process.wait()
    async with asyncio.timeout(10):
        while len(await customer.entries()) < 5:
            await asyncio.gather(ledger.reap(), asyncio.sleep(0.02))
    entries = await customer.entries()
    assert [(entry["cost"], entry["estimated"], entry["outcome"]) for entry in entries] == [(7, True, "expired")] * 5
    assert (await customer.account()).held_nanos == 0
    assert await ledger.verify() == []


@pytest.mark.parametrize("direction", ["request", "answer"])
async def test_a_hold_whose_commit_is_in_doubt_is_taken_once(customer, open_ledger, postgres, database_url, direction):
    async with Wire(postgres.port) as wire:
        ledger = await open_ledger(database_url.replace(str(postgres.port), str(wire.port)))
        await ledger.hold(customer.request(0))
        wire.cut(direction)
        hold = granted(await ledger.hold(customer.request(100)))
        assert wire.cuts == 1
        assert (await customer.account()).held_nanos == 100
        await ledger.settle(hold, paid(60))
        assert (await customer.account()).held_nanos == 0
        await ledger.close()


@pytest.mark.parametrize("direction", ["request", "answer"])
async def test_a_settlement_whose_commit_is_in_doubt_is_posted_once(
    customer, open_ledger, postgres, database_url, direction
):
    async with Wire(postgres.port) as wire:
        ledger = await open_ledger(database_url.replace(str(postgres.port), str(wire.port)))
        hold = granted(await ledger.hold(customer.request(100)))
        wire.cut(direction)
        assert (await ledger.settle(hold, paid(60))).cost_nanos == 60
        assert wire.cuts == 1
        assert (await customer.account()).posted_nanos == 60
        assert len(await customer.entries()) == 1
        await ledger.close()


async def test_under_load_a_wire_that_breaks_again_and_again_changes_no_sum(
    customer, open_ledger, postgres, database_url
):
    async with Wire(postgres.port) as wire:
        ledger = await open_ledger(database_url.replace(str(postgres.port), str(wire.port)))
        await ledger.set_policy(customer.cap(500))

        async def spend():
            try:
                hold = granted(await ledger.hold(customer.request(10)))
            except BudgetExceededError:
                return 0
            return (await ledger.settle(hold, paid(5))).cost_nanos

        async def break_it():
            for number in range(6):
                await asyncio.sleep(0.03)
                wire.cut("answer" if number % 3 else "request")
                while wire.cuts <= number:  # noqa: ASYNC110 - the wire breaks when bytes come by
                    await asyncio.sleep(0.005)

        breaking = asyncio.create_task(break_it())
        spent = 0
        while not breaking.done():
            spent += sum(await asyncio.gather(*(spend() for _ in range(8))))
        assert wire.cuts == 6
        account = await customer.account()
        assert (account.posted_nanos, account.held_nanos, account.overrun_nanos) == (spent, 0, 0)
        assert await ledger.verify() == []
        await ledger.close()


async def test_a_caller_that_gives_up_while_the_commit_is_in_doubt_leaves_nothing_held(
    customer, open_ledger, postgres, database_url
):
    async with Wire(postgres.port) as wire:
        ledger = await open_ledger(database_url.replace(str(postgres.port), str(wire.port)), patience=1)
        await ledger.hold(customer.request(0))
        wire.cut("answer")
        wire.down = True
        with pytest.raises(UnavailableError, match="nothing was charged"):
            await ledger.hold(customer.request(100))
        assert (await customer.account()).held_nanos == 100
        wire.down = False
        async with asyncio.timeout(5):
            while (await customer.account()).held_nanos:  # noqa: ASYNC110 - the database decides
                await asyncio.sleep(0.02)
        assert [entry["outcome"] for entry in await customer.entries()] == [Outcome.RELEASED]
        await ledger.close()


async def test_a_batch_that_is_still_running_when_the_wire_breaks_is_over_before_anything_else_is_done(
    customer, open_ledger, postgres, database_url
):
    """Otherwise it might take its hold after that was given up, and nobody would ever settle it."""
    async with Wire(postgres.port) as wire:
        ledger = await open_ledger(database_url.replace(str(postgres.port), str(wire.port)))
        await ledger.hold(customer.request(0))
        backend = await customer.pool.fetchval(_LAST_TURN)
        os.kill(backend, signal.SIGSTOP)
        try:
            caller = asyncio.create_task(ledger.hold(customer.request(100)))
            await asyncio.sleep(0.05)
            caller.cancel()
            wire.cut_all()
            await asyncio.sleep(0.5)
        finally:
            os.kill(backend, signal.SIGCONT)
        await ledger.hold(customer.request(0))
        async with asyncio.timeout(5):
            while await customer.pool.fetchval(_IS_ALIVE, backend):  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.01)
        assert (await customer.account()).held_nanos == 0
        await ledger.close()


_LAST_TURN = """
SELECT pid FROM pg_stat_activity
WHERE query LIKE '%ledger_turn%' AND datname = current_database() AND pid <> pg_backend_pid()
"""
_IS_ALIVE = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"


async def test_a_restart_of_postgres_under_load_loses_nothing_and_refuses_nobody(
    customer, open_ledger, postgres, database_url
):
    ledgers = [await open_ledger() for _ in range(2)]
    await ledgers[0].set_policy(customer.cap(10**9))
    spending, spent = True, 0

    async def spend(ledger):
        nonlocal spent
        while spending:
            hold = await ledger.hold(customer.request(10))
            assert isinstance(hold, Hold)
            posting = await ledger.settle(hold, paid(7))
            spent += posting.cost_nanos

    spenders = [asyncio.create_task(spend(ledgers[n % 2])) for n in range(16)]
    await asyncio.sleep(0.3)
    restart = threading.Thread(target=lambda: (postgres.stop(), postgres.start()))
    restart.start()
    await asyncio.to_thread(restart.join)
    before = spent
    async with asyncio.timeout(10):
        while spent < before + 1000:  # noqa: ASYNC110 - the spenders go on meanwhile
            await asyncio.sleep(0.02)
    spending = False
    await asyncio.gather(*spenders)
    await customer.pool.expire_connections()
    account = await customer.account()
    assert (account.posted_nanos, account.held_nanos) == (spent, 0)
    assert await ledgers[0].verify() == []


async def test_a_ledger_that_is_closed_posts_what_is_waiting_first(customer, open_ledger):
    ledger = await open_ledger()
    holds = await asyncio.gather(*(ledger.hold(customer.request(10)) for _ in range(50)))
    settlements = [asyncio.create_task(ledger.settle(granted(hold), paid(1))) for hold in holds]
    await asyncio.sleep(0)
    await ledger.close()
    assert sum(posting.cost_nanos for posting in await asyncio.gather(*settlements)) == 50
    assert (await customer.account()).held_nanos == 0
