"""Starting, stopping, killing and starting again, on one data folder; the tests build on each other in this order."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Up, loam, processes_of, until

pytestmark = pytest.mark.platform


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for the whole story."""
    return tmp_path_factory.mktemp("lifecycle") / "data"


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """What earlier tests of the story saw."""
    return {}


def gone(data: Path) -> bool:
    return not processes_of(data)


def spent(up: Up) -> str:
    return str(up.get("/v1/usage/budget")["caps"][0]["postedUsd"])


def test_kill_9_in_the_middle_of_the_first_start_leaves_no_process(new_up: Callable[..., Up], data: Path) -> None:
    up = new_up(data=data)
    until((data / "postgres.half-made" / "base").exists, 30, "the database is being made")
    up.stop(signal.SIGKILL)
    until(lambda: gone(data), 6, "no process is left")


def test_ctrl_c_stops_everything_within_ten_seconds(
    new_up: Callable[..., Up], data: Path, known: dict[str, str], tmp_path: Path
) -> None:
    up = new_up(data=data).ready()
    file = tmp_path / "light.md"
    file.write_text("The light of Rubh' an Duin flashes twice every ten seconds.")
    assert up.loam("documents", "add", str(file)).code == 0
    known |= {"key": up.key, "url": up.known["url"], "spent": spent(up)}
    assert len(processes_of(data)) >= 8
    began = time.monotonic()
    assert up.stop(signal.SIGINT, seconds=20) == 0
    assert time.monotonic() - began < 10
    assert gone(data)
    assert not (data / "running.json").exists()


def test_data_keys_ports_and_spending_survive_a_restart(
    new_up: Callable[..., Up], data: Path, known: dict[str, str]
) -> None:
    up = new_up(data=data, manifests=None).ready()
    assert (up.key, up.known["url"]) == (known["key"], known["url"])
    assert up.documents()["light.md"] == "Ready"
    answer = up.loam("ask", "How often does the light of Rubh' an Duin flash?", "--json").json
    assert "twice every ten seconds" in answer["content"]
    assert float(spent(up)) > float(known["spent"]) > 0

    second = loam("up", "-f", "samples/acme", data=data)
    assert second.code == 1
    assert f"is in use by another `loam up` (process {up.process.pid})" in second.err
    assert "Traceback" not in second.err

    up.stop(signal.SIGKILL)
    until(lambda: gone(data), 6, "kill -9 leaves no process")


def test_the_demo_runs_from_where_kill_9_left_it_and_leaves_no_process(data: Path, tmp_path: Path) -> None:
    (tmp_path / "otters.txt").write_text("Otters of the Sound hold hands when they sleep.")
    done = loam("demo", "--docs", str(tmp_path), data=data, seconds=120)
    assert done.code == 0, done.out + done.err
    assert len([line for line in done.out.splitlines() if line.startswith("  cost $0.0")]) == 3
    assert "left to user backend-service this month" in done.out
    assert done.out.count("[1] ") >= 3
    assert "curl -s http://127.0.0.1:" in done.out
    assert gone(data)


def test_sigterm_during_the_start_stops_what_was_started(new_up: Callable[..., Up], data: Path) -> None:
    up = new_up(data=data)
    until(lambda: "PostgreSQL" in up.said, 30, "it has begun")
    assert up.stop(signal.SIGTERM) == 0
    assert gone(data)
