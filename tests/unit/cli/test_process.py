"""Programs are kept running, stopped for certain, and never left behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from loam_cli.local.process import Guard, Program, State, Supervised, last_words, run_to_end

SLEEP = "import time; time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"
PARENT = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print('born', flush=True); {SLEEP}"
)


async def yes() -> bool:
    return True


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    guard = await Guard.start("a test")
    yield guard
    await guard.close()


@pytest.fixture
async def supervise(guard: Guard, tmp_path: Path) -> AsyncIterator[Callable[..., Supervised]]:
    """Starts a program of these lines of Python."""
    started: list[Supervised] = []

    def start(code: str, **options: object) -> Supervised:
        options = {"ready": yes, "stop_seconds": 0.5} | options
        program = Program("one", (sys.executable, "-c", code), dict(os.environ), cwd=tmp_path, **options)  # type: ignore[arg-type]  # of a test
        started.append(Supervised(program, guard, tmp_path / "one.log"))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        await process.stop()


async def until(holds: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_what_crashes_is_started_again(supervise: Callable[..., Supervised]) -> None:
    process = supervise("print('ouch')")
    await until(lambda: process.restarts >= 2)
    assert process.exit_code == 0
    assert last_words(process.log) in {"ouch", "it said nothing"}


async def test_what_never_becomes_ready_counts_as_crashed(supervise: Callable[..., Supervised]) -> None:
    async def no() -> bool:
        return False

    process = supervise(SLEEP, ready=no, start_seconds=0.3)
    assert await process.settled() is State.CRASHED


async def test_what_does_not_heed_is_killed(supervise: Callable[..., Supervised]) -> None:
    process = supervise(DEAF)
    await until(lambda: last_words(process.log) == "deaf")
    await process.stop()
    assert process.state is State.STOPPED
    assert process.exit_code == -signal.SIGKILL


async def test_children_of_what_is_stopped_go_too(supervise: Callable[..., Supervised]) -> None:
    process = supervise(PARENT)
    await until(lambda: last_words(process.log) == "born")
    assert process.process is not None
    (child,) = psutil.Process(process.process.pid).children()
    await process.stop()
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_the_guard_ends_the_whole_group_of_what_was_left(tmp_path: Path) -> None:
    guard = await Guard.start("a test")
    program = Program("one", (sys.executable, "-c", PARENT), dict(os.environ), yes, tmp_path)
    process = Supervised(program, guard, tmp_path / "one.log")
    process.start()
    await until(lambda: last_words(process.log) == "born")
    assert process.process is not None
    (child,) = psutil.Process(process.process.pid).children()
    # As when we are killed: the pipe closes and nobody has stopped anything.
    assert process._task is not None
    process._task.cancel()
    await guard.close()
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_a_program_that_ends_by_itself_gives_its_code(guard: Guard, tmp_path: Path) -> None:
    program = Program("one", (sys.executable, "-c", "raise SystemExit(3)"), dict(os.environ), yes, tmp_path)
    assert await run_to_end(program, guard, tmp_path / "one.log") == 3


def test_the_last_words_are_those_of_the_latest_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("FATAL: long ago\n--- started by loam up ---\nLOG: hm\n[7] FATAL:  no lock\n[7] PANIC:  and more\n")
    assert last_words(log) == "[7] FATAL:  no lock"
    log.write_text("--- started by loam up ---\n")
    assert last_words(log) == "it said nothing"
