"""The ledger against the simplest one, for a long time: ``python -m tests.chaos.soak STEPS MINUTES``.

It ends after so many steps or minutes, says how far it is, and writes build/bench/soak.json. A disagreement ends it
with the shortest sequence of steps that shows it.
"""

import sys
import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from loam_gateway.migrations import upgrade

from ..bench.figures import write
from ..services._servers import embedded
from ..services.ledger._machine import Bench, machine_on

_LIVES_AT_ONCE, _STEPS_OF_A_LIFE = 50, 100
_SETTINGS = settings(
    max_examples=_LIVES_AT_ONCE,
    stateful_step_count=_STEPS_OF_A_LIFE,
    phases=(Phase.generate, Phase.shrink),
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def soak(bench: Bench, steps: int, seconds: float) -> None:
    """Live one life after the other until there were enough steps, or there is no time left."""
    began, machine = time.monotonic(), machine_on(bench)
    while bench.counts["steps"] < steps and time.monotonic() - began < seconds:
        run_state_machine_as_test(machine, settings=_SETTINGS)
        passed = time.monotonic() - began
        print(f"{bench.counts['steps']:>9,} steps in {passed:7.0f} s: {dict(bench.counts)}", flush=True)
        write("soak", {"seconds": round(passed), **bench.counts})
    found = bench.differences()
    assert found == [], found
    print("the ledger adds up")


def main() -> None:
    """Soak a PostgreSQL of its own."""
    steps, minutes = sys.argv[1:]
    with embedded.postgres() as server:
        upgrade(server.url("postgres"))
        with Bench.opened(server.url("postgres")) as bench:
            soak(bench, int(steps), float(minutes) * 60)


if __name__ == "__main__":
    main()
