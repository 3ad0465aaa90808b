"""No honest caller is refused and no cap is passed, in any order of whatever may happen."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ._machine import Bench, machine_on

# Ten thousand steps; `make soak` does a million.
LIVES, STEPS = 100, 100
SETTINGS = settings(
    max_examples=LIVES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
)


# Half a minute on an idle machine.
@pytest.mark.timeout(900)
def test_any_life_of_a_tenant_over_three_gateways_agrees_with_the_simplest_ledger(database_url):
    with Bench.opened(database_url) as bench:
        run_state_machine_as_test(machine_on(bench), settings=SETTINGS)
        assert bench.differences() == []
    # All of these happened, or nothing was shown.
    for what in ("granted", "clamped", "refused", "pending", "conflict", "replayed", "abandoned", "expired"):
        assert bench.counts[what] > 0, bench.counts
