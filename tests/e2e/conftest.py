"""Whole platforms, started as a user starts them: by the `loam` command, in processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
LOAM = Path(sys.executable).with_name("loam")
SAMPLE = ROOT / "samples" / "acme"


def until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value that `holds` gives within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


@dataclass
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def loam(*arguments: str, data: Path, seconds: float = 60, **environment: str) -> Done:
    """Run a command to its end."""
    done = subprocess.run(
        [LOAM, *arguments, "--data", data],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | environment,
        cwd=ROOT,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass
class Up:
    """A `loam up` that was started on a data folder."""

    data: Path
    process: subprocess.Popen[str]
    output: Path
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, data: Path, *options: str, manifests: Path | None = SAMPLE) -> "Up":
        output = data.with_name(f"{data.name}.out")
        files = ["-f", manifests] if manifests else []
        command = [LOAM, "up", *files, "--data", data, *options]
        with output.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        return cls(data, process, output)

    def ready(self, seconds: float = 60) -> "Up":
        """Wait until it says that it is up."""
        until(lambda: "Loam is up" in self.said or self.process.poll() is not None, seconds, "Loam is up")
        assert self.process.poll() is None, self.said
        return self

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def known(self) -> dict[str, str]:
        """What the data folder says of the running platform."""
        return dict(json.loads((self.data / "running.json").read_text()))

    @property
    def key(self) -> str:
        return next(word for word in self.said.split() if word.startswith("loam_"))

    def loam(self, *arguments: str, **environment: str) -> Done:
        return loam(*arguments, data=self.data, **environment)

    def get(self, path: str) -> Any:
        """What the public API answers."""
        request = urllib.request.Request(self.known["url"] + path, headers={"authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def objects(self) -> list[dict[str, Any]]:
        """Every object of its cluster."""
        known = self.known
        headers = {"authorization": f"Bearer {known['token']}"}
        with urllib.request.urlopen(urllib.request.Request(known["control"] + "/objects", headers=headers)) as response:
            return list(json.load(response))

    def documents(self) -> dict[str, str]:
        """The status of each document, by its name."""
        page = self.get("/v1/pipelines/handbook/documents?limit=1000")
        return {document["name"]: document["status"] for document in page["documents"]}

    def stop(self, number: int = signal.SIGINT, seconds: float = 10) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


def processes_of(data: Path) -> list[psutil.Process]:
    """Every process that was started for the platform of this data folder, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            here = process.cwd().startswith(str(data)) or str(data) in " ".join(process.cmdline())
            if here and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
    return found


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One platform with samples/acme for all tests that leave it as they found it."""
    up = Up.start(tmp_path_factory.mktemp("platform") / "data")
    try:
        yield up.ready()
    finally:
        up.stop()


@pytest.fixture
def new_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts platforms that are stopped at the end of the test, come what may."""
    started: list[Up] = []

    def start(*options: str, data: Path = tmp_path / "data", manifests: Path | None = SAMPLE) -> Up:
        started.append(Up.start(data, *options, manifests=manifests))
        return started[-1]

    yield start
    for up in started:
        if up.process.poll() is None:
            up.stop(signal.SIGTERM)
