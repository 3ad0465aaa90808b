"""Circuit breakers: a model that fails in a region is left alone there for a while, and then tried by one call.

Each gateway judges by the calls that it has made itself. Throttling does not open a circuit: a provider that throttles
is alive, says so at once, and serves what fits.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum

from prometheus_client import Gauge

from loam_gateway.adapters.provider import FailureKind, ProviderCallError

# What says that the model is down there, and not that the call, the credential or the quota is at fault.
_FAULTS = frozenset({FailureKind.UNAVAILABLE, FailureKind.UNREACHABLE, FailureKind.TIMED_OUT, FailureKind.BROKEN_OFF})
# Beside so many failures in a row, half of the calls of the last while open it, too, once there were enough of them.
_WINDOW_SECONDS = 30.0
_ENOUGH_CALLS = 20
# A probe that fails doubles the time until the next, up to this many times the first.
_LONGEST_COOLDOWN = 8


class State(IntEnum):
    """As the metric has it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """The circuit to one model in one region: a call that it `admits` is made within `calling`."""

    def __init__(self, failures: int, cooldown_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`failures` in a row open it; 0 of them never do."""
        self._most_failures = failures
        self._first_cooldown = cooldown_seconds
        self._clock = clock
        self._in_a_row = 0
        self._recent: deque[tuple[float, bool]] = deque()
        self._faults = 0
        self._cooldown = cooldown_seconds
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        """How it stands."""
        if self._opened_at is None:
            return State.CLOSED
        return State.HALF_OPEN if self._probing or self.seconds_left <= 0 else State.OPEN

    @property
    def seconds_left(self) -> float:
        """How long no call is admitted; 0 or less when one is."""
        return 0.0 if self._opened_at is None else self._opened_at + self._cooldown - self._clock()

    @property
    def would_admit(self) -> bool:
        """Whether a call may be made now; of those that come after the cool-down, one."""
        return self._opened_at is None or not (self._probing or self.seconds_left > 0)

    def admits(self) -> bool:
        """As `would_admit`, for a call that is made at once if so."""
        admitted = self.would_admit
        self._probing |= admitted and self._opened_at is not None
        return admitted

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """The time of a call that was just admitted; how it ends counts, unless it was given up."""
        probe = self._opened_at is not None
        try:
            yield
        except ProviderCallError as error:
            if error.kind in _FAULTS:
                self._failed(probe=probe)
            raise
        else:
            self._succeeded(probe=probe)
        finally:
            if probe:
                self._probing = False

    def _succeeded(self, *, probe: bool) -> None:
        self._in_a_row = 0
        if probe:
            self._opened_at, self._cooldown = None, self._first_cooldown
            self._recent.clear()
            self._faults = 0
        elif self._recent:
            # Successes count only against failures: as long as there is none, nothing needs to be remembered.
            self._remember(failed=False)

    def _failed(self, *, probe: bool) -> None:
        if probe:
            self._cooldown = min(self._cooldown * 2, self._first_cooldown * _LONGEST_COOLDOWN)
            self._opened_at = self._clock()
            return
        # Calls from before the opening say nothing new.
        if self._opened_at is None:
            self._in_a_row += 1
            self._remember(failed=True)
            if self._most_failures and self._too_many():
                self._opened_at = self._clock()

    def _too_many(self) -> bool:
        calls = len(self._recent)
        return self._in_a_row >= self._most_failures or (calls >= _ENOUGH_CALLS and 2 * self._faults >= calls)

    def _remember(self, *, failed: bool) -> None:
        now = self._clock()
        self._recent.append((now, failed))
        self._faults += failed
        while self._recent[0][0] < now - _WINDOW_SECONDS:
            self._faults -= self._recent.popleft()[1]


class Breakers:
    """The circuits of this gateway, each made when it is first needed."""

    def __init__(self, failures: int, cooldown_seconds: float, states: Gauge) -> None:
        self._settings = (failures, cooldown_seconds)
        self._states = states
        self._known: dict[tuple[str, str], Breaker] = {}

    @property
    def any_open(self) -> bool:
        """Whether some model is left alone in some region just now."""
        return any(breaker.state is State.OPEN for breaker in self._known.values())

    def of(self, model: str, region: str) -> Breaker:
        """The circuit to `model` in `region`, both names of the platform's."""
        found = self._known.get((model, region))
        if found is None:
            found = self._known[model, region] = Breaker(*self._settings)
            self._states.labels(model, region).set_function(lambda: float(found.state))
        return found
