"""A tenant's burst waits in its own line: the others take their turns in between."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loam_gateway.metering.fairness import FairQueue


async def test_turns_go_round_the_tenants_and_by_arrival_within_one() -> None:
    queue, order = FairQueue(1), []
    await queue.enter("first")

    async def wait(tenant: str, number: int) -> None:
        await queue.enter(tenant)
        order.append((tenant, number))
        queue.leave()

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(wait("busy", number))
        tasks.create_task(wait("quiet", 0))
        await asyncio.sleep(0)
        queue.leave()
    assert order == [("busy", 0), ("quiet", 0), ("busy", 1), ("busy", 2)]


async def test_who_goes_away_while_waiting_takes_nobodys_turn() -> None:
    queue = FairQueue(1)
    await queue.enter("a")
    gone = asyncio.create_task(queue.enter("a"))
    stays = asyncio.create_task(queue.enter("b"))
    await asyncio.sleep(0)
    gone.cancel()
    queue.leave()
    async with asyncio.timeout(1):
        await stays
    assert queue.waiting == 0


async def test_a_turn_given_to_someone_who_just_went_away_is_passed_on() -> None:
    queue = FairQueue(1)
    await queue.enter("a")
    gone, stays = asyncio.create_task(queue.enter("b")), asyncio.create_task(queue.enter("c"))
    await asyncio.sleep(0)
    queue.leave()
    gone.cancel()
    async with asyncio.timeout(1):
        await stays
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_request_gives_its_turn_back_once_however_often_it_says_so() -> None:
    queue = FairQueue(1)
    slot = queue.slot("a")
    async with slot, slot:
        slot.give_back()
        slot.give_back()
        async with asyncio.timeout(1):
            await queue.enter("b")
    entering = asyncio.create_task(queue.enter("c"))
    await asyncio.sleep(0)
    assert not entering.done()
    queue.leave()
    await entering


async def test_two_branches_of_one_request_keep_one_turn() -> None:
    queue = FairQueue(1)
    slot = queue.slot("a")

    async def branch() -> None:
        async with slot:
            await asyncio.sleep(0)

    await queue.enter("b")
    async with asyncio.TaskGroup() as branches:
        branches.create_task(branch())
        branches.create_task(branch())
        await asyncio.sleep(0)
        queue.leave()
    async with asyncio.timeout(1):
        await queue.enter("c")
    assert queue.waiting == 0


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 5), tenants=st.lists(st.sampled_from("abcd"), max_size=40), seed=st.integers())
def test_never_more_turns_than_the_width_and_none_is_lost(width: int, tenants: list[str], seed: int) -> None:
    chance = random.Random(seed)

    async def play() -> None:
        queue, inside = FairQueue(width), 0

        async def work(tenant: str) -> None:
            nonlocal inside
            await queue.enter(tenant)
            inside += 1
            assert inside <= width
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                inside -= 1
                queue.leave()

        tasks = [asyncio.create_task(work(tenant)) for tenant in tenants]
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
            if tasks and chance.random() < 0.4:
                chance.choice(tasks).cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert queue.waiting == 0
        async with asyncio.timeout(1):
            for _ in range(width):
                await queue.enter("z")

    asyncio.run(play())
