"""A whole gateway on real servers, for the operator to talk to."""

import base64
import contextlib
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from loam_shared.credentials import new_signing_key

from ...services._servers import embedded

_ADMINISTRATOR = ("admin", "adminsecret")


@dataclass
class Gateway:
    """A running gateway: its doors, its admin token and its storage."""

    public: str
    admin: str
    token_file: Path
    s3: str
    bucket: str
    process: subprocess.Popen[bytes]

    def answer(self, key: str) -> int:
        """The status that a key gets at the public door."""
        request = urllib.request.Request(f"{self.public}/v1/models", headers={"Authorization": f"Bearer {key}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Gateway]:
    """A gateway with a database, a cache and a storage of its own."""
    with (
        embedded.postgres() as database,
        embedded.valkey() as cache,
        embedded.seaweedfs(*_ADMINISTRATOR) as s3,
    ):
        ports = embedded.free_ports(3)
        bucket = f"loam-{os.urandom(4).hex()}"
        env = _environment(folder, ports, bucket) | {
            "LOAM_DATABASE_URL": database.url("postgres"),
            "LOAM_REDIS_URL": cache,
            "AWS_ENDPOINT_URL_S3": s3,
            "AWS_ENDPOINT_URL_IAM": s3,
        }
        subprocess.run([sys.executable, "-m", "loam_gateway", "migrate"], env=env, check=True)
        process = subprocess.Popen([sys.executable, "-m", "loam_gateway"], env=env)
        public, _, admin = (f"http://127.0.0.1:{port}" for port in ports)
        try:
            embedded.wait_until(lambda: _is_up(public, process), "the gateway did not start")
            yield Gateway(public, admin, folder / "admin", s3, bucket, process)
        finally:
            process.terminate()
            process.wait(10)


def _environment(folder: Path, ports: list[int], bucket: str) -> dict[str, str]:
    (folder / "admin").write_text(secrets.token_hex(16))
    (folder / "encryption").write_bytes(base64.b64encode(os.urandom(32)))
    (folder / "signing").write_bytes(orjson.dumps(new_signing_key().as_dict(private=True)))
    return {
        "PATH": os.environ["PATH"],
        "LOAM_PUBLIC_PORT": str(ports[0]),
        "LOAM_INTERNAL_PORT": str(ports[1]),
        "LOAM_ADMIN_PORT": str(ports[2]),
        "LOAM_ADMIN_TOKEN_FILE": str(folder / "admin"),
        "LOAM_ENCRYPTION_KEY_FILE": str(folder / "encryption"),
        "LOAM_SIGNING_KEY_FILE": str(folder / "signing"),
        "LOAM_STORAGE_BUCKET": bucket,
        "LOAM_HOUSEKEEPING_SECONDS": "0.2",
        "LOAM_LOG_LEVEL": "warning",
        "AWS_ACCESS_KEY_ID": _ADMINISTRATOR[0],
        "AWS_SECRET_ACCESS_KEY": _ADMINISTRATOR[1],
        "AWS_REGION": "us-east-1",
    }


def _is_up(public: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the gateway ended with {process.returncode} while it started")
    try:
        with urllib.request.urlopen(f"{public}/v1/health", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
