"""The work queue: nothing is missed, nothing is worked on twice at once."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loam_operator.queue import LONGEST_PAUSE, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def next_of(queue: WorkQueue[str]) -> str | None:
    try:
        async with asyncio.timeout(0.01):
            return await queue.get()
    except TimeoutError:
        return None


async def test_a_key_that_is_added_twice_is_worked_on_once(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    assert await next_of(queue) is None


async def test_a_key_that_changes_while_it_is_worked_on_comes_again_afterwards(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    await queue.get()
    queue.add("a")
    assert await next_of(queue) is None
    queue.done("a")
    assert await next_of(queue) == "a"


async def test_failures_wait_twice_as_long_each_time_up_to_a_bound(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    pauses = []
    for _ in range(12):
        await queue.get()
        pauses.append(queue.failed("a"))
        assert await next_of(queue) is None
        clock.now += pauses[-1]
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert pauses[-1] == LONGEST_PAUSE


async def test_success_forgets_the_failures(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    await queue.get()
    first = queue.failed("a")
    clock.now += first
    await queue.get()
    queue.done("a")
    queue.add("a")
    await queue.get()
    assert queue.failed("a") == first


async def test_a_change_does_not_wait_for_the_pause(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    await queue.get()
    queue.failed("a")
    queue.add("a")
    assert await next_of(queue) == "a"


async def test_the_sooner_of_two_appointments_counts(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    clock.now = 5
    assert await next_of(queue) == "a"
    queue.done("a")
    clock.now = 10
    assert await next_of(queue) is None


async def test_a_waiter_is_woken_by_a_new_key(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue(clock)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(waiting, 1) == "a"


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "get", "done", "failed", "later", "tick"]), st.sampled_from("abc")), max_size=60
)


@given(STEPS)
def test_whatever_happens_every_added_key_is_seen_after_its_last_change_and_never_twice_at_once(
    steps: list[tuple[str, str]],
) -> None:
    async def play() -> None:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock)
        working: set[str] = set()
        unseen: set[str] = set()
        for step, key in steps:
            if step in {"add", "later"}:
                queue.add(key) if step == "add" else queue.add_after(key, 3)
                unseen.add(key)
            elif step == "get" and (got := _take(queue)):
                assert got not in working
                working.add(got)
                unseen.discard(got)
            elif step in {"done", "failed"} and key in working:
                working.discard(key)
                queue.done(key) if step == "done" else queue.failed(key)
            elif step == "tick":
                clock.now += 1
        for key in working:
            queue.done(key)
        clock.now += 1_000
        while got := _take(queue):
            unseen.discard(got)
            queue.done(got)
        assert not unseen

    asyncio.run(play())


def _take(queue: WorkQueue[str]) -> str | None:
    """The next key if there is one now."""
    taking = queue.get()
    try:
        taking.send(None)
    except StopIteration as got:
        return str(got.value)
    taking.close()
    return None
