"""Programs as supervised processes: started, waited for, restarted with back-off when they die, stopped, never left."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

_LAUNCH = Path(__file__).with_name("launch.py")
_GUARD = Path(__file__).with_name("guard.py")
_BARE_PYTHON = (sys.executable, "-I", "-S")
_LOG_BYTES = 10 * 2**20
_BACKOFF_SECONDS = (0.2, 0.5, 1, 2, 5, 10)
_STEADY_SECONDS = 30
_POLL_SECONDS = 0.03
_START_MARK = "--- started by loam up ---\n"
_FATAL = re.compile(r"\b(FATAL|PANIC): ")

Ready = Callable[[], Awaitable[bool]]


class State(StrEnum):
    """Where a supervised program stands."""

    STARTING = "Starting"
    READY = "Ready"
    CRASHED = "Crashed"
    STOPPED = "Stopped"


@dataclass(frozen=True)
class Program:
    """What to run: an absolute program path with arguments, its whole environment, how to see that it is ready.

    `user` is whom to become when started as root; `abort_signal` is what ends it when `loam up` itself was killed.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    ready: Ready
    cwd: Path
    user: str | None = None
    stop_signal: int = signal.SIGTERM
    abort_signal: int = signal.SIGKILL
    start_seconds: float = 60
    stop_seconds: float = 6


class Guard:
    """The process that ends all others should this one be killed."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: int) -> None:
        self._process = process
        self.pipe = pipe

    @classmethod
    async def start(cls, about: str) -> "Guard":
        """Start it in a session of its own, out of reach of the terminal's signals; `about` is for `ps` to show."""
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *_BARE_PYTHON, str(_GUARD), about, stdin=reading, cwd="/", start_new_session=True
            )
        finally:
            os.close(reading)
        return cls(process, writing)

    def ended(self, pid: int) -> None:
        """Say that a process was seen to end, so that its number is free for others."""
        os.write(self.pipe, f"-{pid}\n".encode())

    async def close(self) -> None:
        """Let it go; it ends whatever is still there."""
        os.close(self.pipe)
        await self._process.wait()


@dataclass
class Supervised:
    """One program kept running by `run` until `stop`; `changed` is called at every change of `state`."""

    program: Program
    guard: Guard
    log: Path
    changed: Callable[["Supervised"], None] = lambda _: None
    state: State = State.STARTING
    restarts: int = 0
    exit_code: int | None = None
    process: asyncio.subprocess.Process | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to keep it running, in the background."""
        self._task = asyncio.create_task(self._keep_running(), name=self.program.name)

    async def settled(self) -> State:
        """Wait until it is ready, or has failed to become so."""
        while self.state is State.STARTING:
            self._moved.clear()
            await self._moved.wait()
        return self.state

    async def stop(self) -> None:
        """Stop it, by force when it does not heed; returns when its whole process group is gone."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _keep_running(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            self._move(State.STARTING)
            began = time.monotonic()
            # What cannot even be started, for want of disk or of processes, is tried again like what crashed.
            with contextlib.suppress(OSError):
                await self._run_once()
            if self._stopping.is_set():
                break
            self._move(State.CRASHED)
            attempt = 0 if time.monotonic() - began > _STEADY_SECONDS else attempt + 1
            await self._pause(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
            self.restarts += 1
        self._move(State.STOPPED)

    async def _run_once(self) -> None:
        """One life of the process, from its start until the last of its group is gone."""
        self.process = await _spawn(self.program, self.guard, self.log)
        ended = asyncio.create_task(self.process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        watching = asyncio.create_task(self._watch_readiness())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        watching.cancel()
        await asyncio.wait((watching,))
        if not ended.done():
            await self._end(ended)
        self.exit_code = await ended
        _kill_group(self.process.pid)
        self.guard.ended(self.process.pid)

    async def _watch_readiness(self) -> None:
        """Ask until it is ready; a start that takes too long is ended, which counts as a crash."""
        deadline = time.monotonic() + self.program.start_seconds
        while not await self.program.ready():
            if time.monotonic() > deadline:
                assert self.process is not None
                _kill_group(self.process.pid)
                return
            await asyncio.sleep(_POLL_SECONDS)
        self._move(State.READY)

    async def _end(self, ended: "asyncio.Task[int]") -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(self.program.stop_signal)
        done, _ = await asyncio.wait((ended,), timeout=self.program.stop_seconds)
        if not done:
            _kill_group(self.process.pid)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _move(self, state: State) -> None:
        self.state = state
        self._moved.set()
        self.changed(self)


async def run_to_end(program: Program, guard: Guard, log: Path) -> int:
    """Run something that ends by itself; returns its exit code. Cancelled, it takes the program with it."""
    process = await _spawn(program, guard, log)
    try:
        return await process.wait()
    finally:
        _kill_group(process.pid)
        await process.wait()
        guard.ended(process.pid)


async def _spawn(program: Program, guard: Guard, log: Path) -> asyncio.subprocess.Process:
    launch = (str(_LAUNCH), str(guard.pipe), str(int(program.abort_signal)), program.user or "-")
    with _open_log(log) as output:
        return await asyncio.create_subprocess_exec(
            *_BARE_PYTHON,
            *launch,
            *program.command,
            env=dict(program.env),
            cwd=program.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(guard.pipe,),
            start_new_session=True,
        )


def said_since_start(log: Path) -> str:
    """The end of what a program wrote to its log since its latest start."""
    text = log.read_bytes()[-_LOG_BYTES:].decode(errors="replace") if log.exists() else ""
    return text.rpartition(_START_MARK)[2]


def last_words(log: Path) -> str:
    """The line that says why a program ended: PostgreSQL's first word of it, else the last line of this start."""
    lines = [line for line in said_since_start(log).splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    return next((line for line in lines if _FATAL.search(line)), last).strip()


def _open_log(path: Path) -> IO[bytes]:
    """The log to append to; a long one is set aside first, and replaces the one before it."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    log = path.open("ab", buffering=0)
    # A program that was running when the disk filled up is to come back, if need be without a log.
    with contextlib.suppress(OSError):
        log.write(_START_MARK.encode())
    return log


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
