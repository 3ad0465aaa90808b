"""A circuit opens on failures, not on refusals, and closes on one call that works."""

import pytest

from loam_gateway.adapters.provider import FailureKind, ProviderCallError
from loam_gateway.metering.breaker import Breaker, State


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(3, 10, clock)


def call(breaker, kind=None):
    assert breaker.admits()
    if kind is None:
        with breaker.calling():
            return
    with pytest.raises(ProviderCallError), breaker.calling():
        raise ProviderCallError(kind, "played")


def opened(breaker):
    for _ in range(3):
        call(breaker, FailureKind.UNAVAILABLE)
    assert breaker.state is State.OPEN


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not(breaker):
    for _ in range(2):
        call(breaker, FailureKind.UNREACHABLE)
        call(breaker, FailureKind.TIMED_OUT)
        call(breaker)
    assert breaker.state is State.CLOSED
    opened(breaker)
    assert not breaker.admits()
    assert breaker.seconds_left == 10


@pytest.mark.parametrize("kind", [FailureKind.INVALID, FailureKind.REFUSED, FailureKind.THROTTLED])
def test_what_is_no_fault_of_the_model_never_opens_it(breaker, kind):
    for _ in range(100):
        call(breaker, kind)
    assert breaker.state is State.CLOSED


def test_half_of_many_calls_that_fail_open_it_even_with_successes_between(clock):
    breaker = Breaker(1000, 10, clock)
    for _ in range(10):
        call(breaker, FailureKind.BROKEN_OFF)
        clock.now += 1
        if breaker.state is State.CLOSED:
            call(breaker)
    assert breaker.state is State.CLOSED
    call(breaker, FailureKind.BROKEN_OFF)
    assert breaker.state is State.OPEN


def test_failures_of_long_ago_are_forgotten(clock):
    breaker = Breaker(1000, 10, clock)
    for _ in range(19):
        call(breaker, FailureKind.UNAVAILABLE)
    clock.now += 31
    for _ in range(3):
        call(breaker, FailureKind.UNAVAILABLE)
    assert breaker.state is State.CLOSED


def test_after_the_cool_down_one_probe_is_let_through_and_its_success_closes_it(breaker, clock):
    opened(breaker)
    clock.now = 10
    assert breaker.state is State.HALF_OPEN
    assert breaker.admits()
    assert not breaker.admits()
    with breaker.calling():
        assert not breaker.admits()
    assert breaker.state is State.CLOSED
    call(breaker)


def test_a_probe_that_fails_doubles_the_cool_down_up_to_a_limit(breaker, clock):
    opened(breaker)
    waits = []
    for _ in range(5):
        clock.now += breaker.seconds_left
        call(breaker, FailureKind.UNAVAILABLE)
        waits.append(breaker.seconds_left)
    assert waits == [20, 40, 80, 80, 80]
    clock.now += 80
    call(breaker)
    opened(breaker)
    assert breaker.seconds_left == 10


def test_a_probe_that_is_given_up_leaves_its_place_to_the_next(breaker, clock):
    opened(breaker)
    clock.now = 10
    assert breaker.admits()
    with pytest.raises(KeyboardInterrupt), breaker.calling():
        raise KeyboardInterrupt
    assert breaker.state is State.HALF_OPEN
    assert breaker.admits()


def test_calls_from_before_the_opening_change_nothing_when_they_end_late(breaker, clock):
    late = [breaker.calling() for _ in range(5)]
    for each in late:
        each.__enter__()
    opened(breaker)
    for each in late:
        error = ProviderCallError(FailureKind.UNAVAILABLE, "late")
        assert not each.__exit__(type(error), error, None)
    assert breaker.seconds_left == 10


def test_zero_failures_turn_it_off(clock):
    breaker = Breaker(0, 10, clock)
    for _ in range(100):
        call(breaker, FailureKind.UNAVAILABLE)
    assert breaker.state is State.CLOSED
