"""A gateway and a local Bedrock as processes, and tenants of their own for each test."""

import base64
import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai

from loam_shared.credentials import hash_api_key, new_api_key, new_signing_key

from .._servers.embedded import HOST, Server, free_ports, wait_until

PIPELINE = {
    "sources": [{"uploads": {}}],
    "chunking": {"strategy": "Recursive", "maxTokens": 400, "overlapTokens": 40},
    "embedding": {"model": "titan", "dimensions": 256},
}
"""What a RagPipeline says at the least."""

HAIKU = {
    "uid": "model-haiku",
    "provider": "Bedrock",
    "modelId": "anthropic.claude-3-haiku-20240307-v1:0",
    "regions": ["us-east-1", "us-west-2"],
    "capabilities": ["Chat", "Stream", "Tools"],
    "price": {"inputPerMillion": "0.25", "outputPerMillion": "1.25"},
    "maxOutputTokens": 4096,
}
EMBEDDER = {
    "uid": "model-embed",
    "provider": "Bedrock",
    "modelId": "amazon.titan-embed-text-v2:0",
    "capabilities": ["Embed"],
    "dimensions": 256,
    "price": {"inputPerMillion": "0.02"},
}
ALL_SCOPES = ("ai:complete", "ai:embed", "usage:read", "budget:write", "keys:write", "rag:query")


def ok(response: httpx.Response) -> bool:
    return response.status_code == 200


def answers(url: str) -> bool:
    try:
        return ok(httpx.get(url, timeout=2))
    except httpx.HTTPError:
        return False


class LocalBedrock:
    """The stand-in for Bedrock, and the faults that it plays."""

    def __init__(self, folder: Path) -> None:
        [port] = free_ports(1)
        self.url = f"http://{HOST}:{port}"
        (folder / "bedrock").mkdir()
        self._server = Server([sys.executable, "-m", "loam_bedrock_local"], folder / "bedrock")
        self._server.start(lambda: answers(f"{self.url}/healthz"), env=os.environ | {"LOAM_PORT": str(port)})

    def play(self, *rules: dict[str, Any]) -> None:
        httpx.put(f"{self.url}/_local/scenario", json={"rules": rules}).raise_for_status()

    def billed(self, model_id: str) -> dict[str, int]:
        found: dict[str, int] = httpx.get(f"{self.url}/_local/billed").json()["models"].get(model_id, {})
        return found

    def stop(self) -> None:
        self._server.stop()


@dataclass
class Servers:
    """What a gateway is pointed at."""

    database_url: str
    redis_url: str
    s3_endpoint: str
    bedrock_url: str
    more: dict[str, str] = field(default_factory=dict)


class GatewayProcess:
    """`python -m loam_gateway` on free ports."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        self.folder = folder / f"gateway-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir(parents=True)
        ports = free_ports(3)
        self.public, self.internal, self.admin = (f"http://{HOST}:{port}" for port in ports)
        self.admin_token = uuid.uuid4().hex
        self.signing_key = new_signing_key()
        self.environment = self._environment(ports, servers)
        self._server: Server | None = None

    def _environment(self, ports: list[int], servers: Servers) -> dict[str, str]:
        files = {
            "LOAM_ADMIN_TOKEN_FILE": self.admin_token,
            "LOAM_ENCRYPTION_KEY_FILE": base64.b64encode(os.urandom(32)).decode(),
            "LOAM_SIGNING_KEY_FILE": json.dumps(self.signing_key.as_dict(private=True)),
        }
        for name, content in files.items():
            (self.folder / name).write_text(content)
        names = ("LOAM_PUBLIC_PORT", "LOAM_INTERNAL_PORT", "LOAM_ADMIN_PORT")
        return (
            os.environ
            | {name: str(self.folder / name) for name in files}
            | {name: str(port) for name, port in zip(names, ports, strict=True)}
            | {
                # Tests ask the same again and count what is billed for it; those of the cache turn it on.
                "LOAM_CACHE_SECONDS": "0",
                "LOAM_DATABASE_URL": servers.database_url,
                "LOAM_REDIS_URL": servers.redis_url,
                "LOAM_STORAGE_BUCKET": f"loam-{uuid.uuid4().hex[:8]}",
                # No test here looks at tenants' storage, and SeaweedFS is slower with every user that it has.
                "LOAM_STORAGE_IDENTITIES": "Pod",
                "AWS_ACCESS_KEY_ID": "admin",
                "AWS_SECRET_ACCESS_KEY": "adminsecret",
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL_S3": servers.s3_endpoint,
                "AWS_ENDPOINT_URL_IAM": servers.s3_endpoint,
                "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": servers.bedrock_url,
            }
            | servers.more
        )

    def start(self) -> "GatewayProcess":
        self._server = Server([sys.executable, "-m", "loam_gateway"], self.folder)
        self._server.start(lambda: answers(f"{self.public}/v1/health"), env=self.environment)
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    def kill(self) -> None:
        """As ``kill -9`` does."""
        assert self._server is not None
        self._server.kill()

    def popen(self, **more: str) -> "subprocess.Popen[str]":
        """The same process without waiting for it, its standard error at hand."""
        command = [sys.executable, "-m", "loam_gateway"]
        return subprocess.Popen(command, env=self.environment | more, stderr=subprocess.PIPE, text=True)

    def log(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    # What the operator does.

    def put(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.put(f"{self.admin}/admin/v1{path}", json=body, headers=self.operator, timeout=30)

    def delete(self, path: str) -> httpx.Response:
        return httpx.delete(f"{self.admin}/admin/v1{path}", headers=self.operator, timeout=30)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.admin}/admin/v1{path}", headers=self.operator, timeout=30)

    @property
    def operator(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.admin_token}"}

    def model(self, name: str, body: dict[str, Any]) -> None:
        response = self.put(f"/models/{name}", body)
        assert response.status_code == 204, response.text

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all its labels but those that are given."""
        lines = httpx.get(f"{self.admin}/metrics").text.splitlines()
        named = [line for line in lines if line.partition("{")[0].split(" ")[0] == name]
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(line.rsplit(" ", 1)[1]) for line in named if all(each in line for each in wanted))

    def new_tenant(self, **settings: Any) -> "TestTenant":
        """A tenant that no other test has."""
        tenant = TestTenant(self, f"t-{uuid.uuid4().hex[:10]}", uuid.uuid4().hex)
        tenant.put(**settings)
        return tenant


@dataclass
class TestTenant:
    """A tenant, and what its callers do."""

    __test__ = False

    gateway: GatewayProcess
    name: str
    uid: str
    opened: list[Any] = field(default_factory=list)

    def put(self, **settings: Any) -> dict[str, Any]:
        defaults: dict[str, Any] = {"uid": self.uid, "models": ["haiku", "embedder"]}
        response = self.gateway.put(f"/tenants/{self.name}", defaults | settings)
        assert response.status_code == 200, response.text
        state: dict[str, Any] = response.json()
        return state

    def new_key(self, key_id: str = "", scopes: tuple[str, ...] = ALL_SCOPES, **settings: Any) -> str:
        secret, key_id = new_api_key(), key_id or f"k-{uuid.uuid4().hex[:6]}"
        body = {"name": key_id, "hashes": [{"sha256": hash_api_key(secret)}], "scopes": scopes} | settings
        response = self.gateway.put(f"/tenants/{self.name}/keys/{key_id}", body)
        assert response.status_code == 204, response.text
        return secret

    def client(self, key: str | None = None) -> Any:
        base = f"{self.gateway.public}/v1"
        return self._kept(openai.OpenAI(base_url=base, api_key=key or self.new_key(), max_retries=0, timeout=30))

    def async_client(self, key: str) -> openai.AsyncOpenAI:
        base = f"{self.gateway.public}/v1"
        return openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0, timeout=60)

    def http(self, key: str | None = None, base: str | None = None) -> Any:
        headers = {"authorization": f"Bearer {key or self.new_key()}"}
        return self._kept(httpx.Client(base_url=base or self.gateway.public, headers=headers, timeout=30))

    def _kept(self, client: Any) -> Any:
        self.opened.append(client)
        return client

    def close(self) -> None:
        for client in self.opened:
            client.close()


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def eventually(condition: Any, what: str, seconds: float = 10) -> None:
    wait_until(condition, what, seconds)
