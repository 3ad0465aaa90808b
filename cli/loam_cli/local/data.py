"""The data folder of a local platform: who uses it, its secrets, its ports, and where everything lies in it."""

import base64
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from loam_cli.errors import CommandError
from loam_shared.credentials import new_signing_key

MINIMUM_FREE_BYTES = 512 * 2**20
# Below the range from which systems take ports for outgoing connections, or one of those could take ours first.
_PORTS = range(20_000, 30_000)


@dataclass(frozen=True)
class DataFolder:
    """Paths below `root`; everything in it is readable by its owner only."""

    root: Path

    @property
    def logs(self) -> Path:
        """One log file per program."""
        return self.root / "logs"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's own folder, which must belong to whom PostgreSQL runs as."""
        return self.root / "postgres"

    @property
    def storage(self) -> Path:
        """SeaweedFS's own folder."""
        return self.root / "storage"

    @property
    def pods(self) -> Path:
        """Volumes of the local pods, one folder each."""
        return self.root / "pods"

    @property
    def objects(self) -> Path:
        """The database of Kubernetes objects."""
        return self.root / "objects.sqlite"

    @property
    def running(self) -> Path:
        """What other commands need to know of the platform that runs here; absent while none does."""
        return self.root / "running.json"

    @property
    def aws_config(self) -> Path:
        """A configuration file of AWS's tools, with a profile for the platform's S3."""
        return self.root / "aws-config"

    @property
    def credentials(self) -> Path:
        """The platform's own secrets."""
        return self.root / "secrets"

    def secret(self, name: str) -> Path:
        """The file of one of the platform's own secrets."""
        return self.credentials / name

    def prepare(self) -> None:
        """Make the folders. Raises CommandError when there is no place for them, or too little room."""
        try:
            for folder in (self.root, self.logs, self.credentials, self.pods):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"the data folder {self.root} cannot be made: {error.strerror}") from error
        free = shutil.disk_usage(self.root).free
        if free < MINIMUM_FREE_BYTES:
            raise CommandError(
                f"the disk of the data folder {self.root} has only {free // 2**20} MiB left, and the platform needs "
                f"{MINIMUM_FREE_BYTES // 2**20} MiB; free some space or choose another folder with --data"
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder. Raises CommandError when another `loam up` does."""
        with (self.root / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise CommandError(
                    f"the data folder {self.root} is in use by another `loam up` (process {lock.read().strip()}); "
                    "stop that one or choose another folder with --data"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def write_private(self, path: Path, text: str) -> None:
        """Write a file, whole or not at all, that only its owner can read."""
        partial = path.with_name(path.name + ".partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


@dataclass(frozen=True)
class PlatformSecrets:
    """The platform's own secrets, made once. The gateway reads the first three from their files."""

    admin_token_file: Path
    encryption_key_file: Path
    signing_key_file: Path
    database_password_file: Path
    database_password: str
    redis_password: str
    storage_key_id: str
    storage_secret: str

    @classmethod
    def load(cls, data: DataFolder) -> "PlatformSecrets":
        """Read them from the data folder; those that are not there yet, or damaged and of no worth, are made.

        Raises CommandError when one is lost without which what lies in the folder cannot be read.
        """
        for name, make in _MAKERS.items():
            file = data.secret(name)
            if not _is_whole(file, like=make()):
                if name in _IRREPLACEABLE and data.postgres.exists():
                    raise CommandError(
                        f"{file} is {'damaged' if file.exists() else 'missing'}, and without it the platform's data "
                        "cannot be read; put it back from a backup, or begin anew in another folder with --data"
                    )
                data.write_private(file, make())
        return cls(
            admin_token_file=data.secret("admin-token"),
            encryption_key_file=data.secret("encryption-key"),
            signing_key_file=data.secret("signing-key.json"),
            database_password_file=data.secret("database-password"),
            database_password=data.secret("database-password").read_text(),
            redis_password=data.secret("redis-password").read_text(),
            storage_key_id=data.secret("storage-key-id").read_text(),
            storage_secret=data.secret("storage-secret").read_text(),
        )


_MAKERS: dict[str, Callable[[], str]] = {
    "admin-token": lambda: secrets.token_urlsafe(32),
    "encryption-key": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
    "signing-key.json": lambda: json.dumps(new_signing_key().as_dict(private=True)),
    "database-password": lambda: secrets.token_hex(24),
    "redis-password": lambda: secrets.token_hex(24),
    "storage-key-id": lambda: "LOAM" + secrets.token_hex(8).upper(),
    "storage-secret": lambda: secrets.token_hex(20),
}
# The database was made with the one and holds what the other encrypted; all others are told anew at every start.
_IRREPLACEABLE = {"database-password", "encryption-key"}


def _is_whole(file: Path, *, like: str) -> bool:
    """Whether a secret is there and has the form of one: a disk that failed may leave it short, or full of zeros."""
    text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    return len(text) == len(like) and text.isascii() and text.isprintable()


class Ports:
    """Which port each listener has: the one it was given, the one it had last time, or any free one."""

    def __init__(self, data: DataFolder, given: dict[str, int]) -> None:
        """Raises CommandError when a given port is taken."""
        self._data = data
        self._file = data.root / "ports.json"
        self._ports = _remembered(self._file)
        for name, port in given.items():
            if not _is_free(port):
                raise CommandError(f"port {port} is already in use on 127.0.0.1; choose another one with --port")
            self._ports[name] = port
        self._taken: set[int] = set(given.values())

    def of(self, name: str) -> int:
        """The port of a listener; the same one whenever it can be had."""
        port = self._ports.get(name)
        if port is None or (port not in self._taken and not _is_free(port)):
            port = self._ports[name] = self._any_free()
        self._taken.add(port)
        self._data.write_private(self._file, json.dumps(self._ports, indent=1))
        return port

    def _any_free(self) -> int:
        while True:
            port = secrets.choice(_PORTS)
            if port not in self._ports.values() and _is_free(port):
                return port


def _remembered(file: Path) -> dict[str, int]:
    """The ports of last time. They are a convenience, so of a file that is damaged nothing is remembered."""
    try:
        return TypeAdapter(dict[str, Annotated[int, Field(gt=0, lt=2**16)]]).validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do, so that connections of the last run that still linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
