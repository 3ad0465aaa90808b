"""How long `loam up` takes, first and again, how soon it answers, and how much memory all of it needs.

Run it from the repository's root as ``python -m tests.bench.local_platform``. It prints a table and writes
build/bench/platform.json. Memory is the sum of the proportional sets (PSS) where the system knows them, else of the
resident ones.
"""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .figures import write

LOAM = Path(sys.executable).with_name("loam")
DOCUMENT = Path("README.md")
QUESTION = "Which promises does Loam make?"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="loam-bench-") as folder:
        data = Path(folder) / "data"
        figures = measure("first", data, upload=True) | measure("again", data, upload=False)
    write("platform", figures)
    for name, value in figures.items():
        print(f"{name:28} {value:8.1f}")


def measure(name: str, data: Path, *, upload: bool) -> dict[str, float]:
    """Start on a data folder, ask, stop: seconds and MiB."""
    began = time.monotonic()
    with up(data) as process, Memory(process) as memory:
        figures = {f"{name}.up_seconds": time.monotonic() - began}
        if upload:
            loam(data, "documents", "add", str(DOCUMENT))
        loam(data, "ask", QUESTION)
        figures[f"{name}.answer_seconds"] = time.monotonic() - began
        time.sleep(1)
        stopping = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(20)
        figures[f"{name}.stop_seconds"] = time.monotonic() - stopping
    return figures | {f"{name}.peak_mib": memory.peak / 2**20}


@contextmanager
def up(data: Path) -> Iterator[subprocess.Popen[str]]:
    """A platform that has said that it is up."""
    command = [LOAM, "up", "-f", "samples/acme", "--data", data]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if not any("Loam is up" in line for line in process.stdout):
            raise SystemExit("the platform did not start")
        try:
            yield process
        finally:
            process.terminate()


def loam(data: Path, *arguments: str) -> None:
    subprocess.run([LOAM, *arguments, "--data", data], check=True, stdout=subprocess.DEVNULL)


@dataclass
class Memory:
    """The most that a process and all below it were seen to hold, in bytes."""

    process: subprocess.Popen[str]
    peak: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Memory":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.peak = max(self.peak, held(self.process.pid))


def held(pid: int) -> int:
    try:
        parent = psutil.Process(pid)
        return sum(map(of_one, [parent, *parent.children(recursive=True)]))
    except psutil.Error:
        return 0


def of_one(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(memory, "pss", 0) or memory.rss)


if __name__ == "__main__":
    main()
