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


class Life:
    """A queue, and what a correct one owes: keys that changed and were not looked at since."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.queue: WorkQueue[str] = WorkQueue(self.clock)
        self.working: set[str] = set()
        self.unseen: set[str] = set()

    def add(self, key: str) -> None:
        self.queue.add(key)
        self.unseen.add(key)

    def add_later(self, key: str) -> None:
        self.queue.add_after(key, 3)
        self.unseen.add(key)

    def get(self, _: str) -> None:
        if got := _take(self.queue):
            assert got not in self.working, "worked on twice at once"
            self.working.add(got)
            self.unseen.discard(got)

    def done(self, key: str) -> None:
        if key in self.working:
            self.working.discard(key)
            self.queue.done(key)

    def fail(self, key: str) -> None:
        if key in self.working:
            self.working.discard(key)
            self.queue.failed(key)

    def wait(self, _: str) -> None:
        self.clock.now += 1

    def end(self) -> None:
        for key in list(self.working):
            self.done(key)
        self.clock.now += 1_000
        while got := _take(self.queue):
            self.unseen.discard(got)
            self.queue.done(got)
        assert not self.unseen, "a change was missed"


STEPS = st.sampled_from([Life.add, Life.add_later, Life.get, Life.done, Life.fail, Life.wait])


@given(st.lists(st.tuples(STEPS, st.sampled_from("abc")), max_size=60))
def test_whatever_happens_no_change_is_missed_and_no_key_worked_on_twice_at_once(steps: list) -> None:
    async def play() -> None:
        life = Life()
        for step, key in steps:
            step(life, key)
        life.end()

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
