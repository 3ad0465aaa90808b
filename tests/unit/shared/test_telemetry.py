"""Traces are off, and free, unless OpenTelemetry's own variables say where they go."""

import subprocess
import sys

import pytest

from loam_shared import telemetry

ASKED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


def is_on(environment: dict[str, str]) -> bool:
    """Whether a process with this environment traces."""
    program = "from loam_shared import telemetry; telemetry.configure('tested'); print(telemetry.on())"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        (ASKED, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        (ASKED | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ASKED | {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_opentelemetrys_own_variables_decide(environment: dict[str, str], on: bool) -> None:
    assert is_on(environment) is on


def test_while_nothing_is_traced_no_span_is_ever_made() -> None:
    span = telemetry.current()
    assert span is telemetry.NOTHING
    with span.child("a step", {"name": "value"}) as step, step.calling("a call") as call:
        call.set({"more": 1})
        call.fail("reason")
    assert step is call is telemetry.NOTHING
    assert telemetry.headers() == {}
