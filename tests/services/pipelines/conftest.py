"""The pipelines' room on real servers, and a whole gateway around it."""

import asyncio
import base64
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from loam_gateway import storage as storages
from loam_gateway.adapters.postgres import Pool
from loam_gateway.directory.changes import Act
from loam_gateway.pipelines import manifests
from loam_gateway.pipelines import room as rooms
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.room import Room
from loam_gateway.settings import Settings
from loam_gateway.storage import Storage
from loam_gateway.vault import Vault
from loam_shared.contracts.admin import PipelinePut
from loam_shared.credentials import hash_api_key, new_api_key, new_signing_key

from .._servers import embedded

CHUNKING = {"strategy": "Recursive", "maxTokens": 400, "overlapTokens": 40}
EMBEDDING = {"model": "titan-embed", "dimensions": 256}
SPEC = {
    "sources": [{"uploads": {}}, {"s3": {"bucket": "acme-docs", "prefix": ""}}],
    "chunking": CHUNKING,
    "embedding": EMBEDDING,
}

MATCH = {
    "documentId": "doc_1",
    "chunkId": "c1",
    "text": "t",
    "score": 1.0,
    "source": "a.md",
    "span": {"start": 0, "end": 1},
}
CITATION = {"documentId": "doc_1", "source": "a.md", "span": {"start": 0, "end": 1}, "quote": "t"}
WHOLE = [
    ("token", {"text": "It is "}),
    ("citation", CITATION),
    ("token", {"text": "so. ✓"}),
    ("usage", {"inputTokens": 3, "outputTokens": 4, "costUsd": "0.001"}),
    ("done", {}),
]


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A server for each module: its tests make many users."""
    with embedded.seaweedfs("admin", "adminsecret") as endpoint:
        yield endpoint


def aws_environment(s3_endpoint: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "admin",
        "AWS_SECRET_ACCESS_KEY": "adminsecret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": s3_endpoint,
        "AWS_ENDPOINT_URL_IAM": s3_endpoint,
    }


@pytest.fixture(scope="module")
def aws(s3_endpoint: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_environment(s3_endpoint).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def vault() -> Vault:
    return Vault(os.urandom(32))


@pytest_asyncio.fixture(scope="module")
async def storage(aws: None, pool: Pool, vault: Vault) -> AsyncIterator[Storage]:
    settings = Settings.model_construct(storage_bucket=f"loam-{os.urandom(4).hex()}", storage_identities="Iam")
    async with storages.opened(settings, pool, vault) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def room(database_url: str, pool: Pool, storage: Storage, vault: Vault) -> AsyncIterator[Room]:
    async with rooms.opened(database_url, pool, storage, vault, new_signing_key()) as opened:
        yield opened


@pytest_asyncio.fixture
async def pipeline(room: Room) -> PipelineId:
    """A pipeline of its own for each test, with nothing to do."""
    made = PipelineId(f"t{os.urandom(4).hex()}", "handbook")
    await room.storage.provision(made.tenant, uid="tenant-uid")
    await manifests.put(
        room.pool, made, PipelinePut(uid="uid", spec=SPEC, endpoint="http://127.0.0.1:1"), Act("operator", "r")
    )
    await room.pool.execute("DELETE FROM jobs WHERE tenant = $1", made.tenant)
    return made


@dataclass
class Gateway:
    """A gateway process, and its doors."""

    public: str
    internal: str
    admin: str
    admin_token: str
    session: aiohttp.ClientSession
    process: asyncio.subprocess.Process
    environment: dict[str, str] = field(repr=False)

    async def as_operator(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        headers = {"authorization": f"Bearer {self.admin_token}"}
        async with self.session.request(method, f"{self.admin}{path}", json=body, headers=headers) as response:
            return response.status, orjson.loads(await response.read() or b"{}")

    async def new_tenant(self, name: str, endpoint: str = "http://127.0.0.1:1", **spec: object) -> "Tenant":
        """A tenant with one pipeline and its keys, put as the operator does."""
        tenant = Tenant(self, name, *(new_api_key() for _ in range(3)))
        path = f"/admin/v1/tenants/{name}"
        status, tenant.state = await self.as_operator("PUT", path, {"uid": "1", "budget": {"monthlyUsd": "5"}})
        assert status == 200, tenant.state
        for key, more in (
            (tenant.key, {"scopes": ["rag:write", "rag:query"], "user": "ann"}),
            (tenant.reader_key, {"scopes": ["rag:query"]}),
            (tenant.workload_key, {"workload": "handbook"}),
        ):
            body = {"name": "key", "hashes": [{"sha256": hash_api_key(key)}], **more}
            status, told = await self.as_operator("PUT", f"{path}/keys/{secrets.token_hex(4)}", body)
            assert status == 204, told
        body = {"uid": "2", "spec": SPEC | {"sources": [{"uploads": {}}]} | spec, "endpoint": endpoint}
        status, told = await self.as_operator("PUT", f"{path}/pipelines/handbook", body)
        assert status == 200, told
        return tenant


@dataclass
class Tenant:
    """A tenant's keys, and calls with them."""

    gateway: Gateway
    name: str
    key: str
    reader_key: str
    workload_key: str
    state: dict = field(default_factory=dict)

    def call(self, method: str, path: str, *, key: str | None = None, **more):
        """A call of the public listener, below the pipeline."""
        headers = {"authorization": f"Bearer {key or self.key}"} | more.pop("headers", {})
        url = f"{self.gateway.public}/v1/pipelines/handbook{path}"
        return self.gateway.session.request(method, url, headers=headers, **more)

    def work(self, path: str, body: dict, *, key: str | None = None):
        """A word of the pipeline's worker, at the internal listener."""
        headers = {"authorization": f"Bearer {key or self.workload_key}"}
        url = f"{self.gateway.internal}/internal/v1/pipelines/handbook/work/{path}"
        return self.gateway.session.post(url, json=body, headers=headers)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@pytest_asyncio.fixture(scope="module")
async def gateway(
    database_url: str, valkey_url: str, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    folder, ports, token = tmp_path_factory.mktemp("gateway"), free_ports(3), secrets.token_hex(16)
    (folder / "admin").write_text(token)
    (folder / "encryption").write_bytes(base64.b64encode(os.urandom(32)))
    (folder / "signing").write_bytes(orjson.dumps(new_signing_key().as_dict(private=True)))
    environment = _environment(folder, ports, database_url, valkey_url) | aws_environment(s3_endpoint)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "loam_gateway", env=environment)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        made = Gateway(*urls, token, session, process, environment)
        await _until_up(made)
        yield made
    process.terminate()
    async with asyncio.timeout(10):
        assert await process.wait() == 0


def _environment(folder: Path, ports: list[int], database_url: str, valkey_url: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "LOAM_DATABASE_URL": database_url,
        "LOAM_REDIS_URL": valkey_url,
        "LOAM_STORAGE_BUCKET": f"loam-{os.urandom(4).hex()}",
        "LOAM_PUBLIC_PORT": str(ports[0]),
        "LOAM_INTERNAL_PORT": str(ports[1]),
        "LOAM_ADMIN_PORT": str(ports[2]),
        "LOAM_ADMIN_TOKEN_FILE": str(folder / "admin"),
        "LOAM_ENCRYPTION_KEY_FILE": str(folder / "encryption"),
        "LOAM_SIGNING_KEY_FILE": str(folder / "signing"),
        "LOAM_HOUSEKEEPING_SECONDS": "0.2",
        "LOAM_LEASE_SECONDS": "2",
        "LOAM_MAX_UPLOADS": "4",
    }


async def _until_up(gateway: Gateway) -> None:
    async with asyncio.timeout(30):
        while gateway.process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with gateway.session.get(f"{gateway.public}/v1/health") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
    pytest.fail("the gateway ended while it started")


class Service:
    """A retrieval service whose part the test plays: it says `events`, and keeps what it was asked."""

    def __init__(self) -> None:
        self.events = WHOLE
        self.refusal: tuple[int, dict] | None = None
        self.pause = 0.0
        self.asked: list[tuple[Mapping[str, str], dict]] = []
        self.hung_up = asyncio.Event()

    async def query(self, request: web.Request) -> web.Response:
        self.asked.append((request.headers, orjson.loads(await request.read())))
        if self.refusal:
            return web.Response(status=self.refusal[0], body=orjson.dumps(self.refusal[1]))
        return web.Response(body=orjson.dumps({"matches": [MATCH], "usage": {"costUsd": "0.0002"}}))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.headers, orjson.loads(await request.read())))
        if self.refusal:
            return web.Response(status=self.refusal[0], body=orjson.dumps(self.refusal[1]))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for event, data in self.events:
                for piece in _pieces(
                    b": hello\r\nevent: %b\r\ndata: %b\r\n\r\n" % (event.encode(), orjson.dumps(data))
                ):
                    await response.write(piece)
                await asyncio.sleep(self.pause)
        except (ConnectionResetError, asyncio.CancelledError):
            self.hung_up.set()
            raise
        return response


def _pieces(data: bytes) -> list[bytes]:
    """As the network may cut it: in the middle of lines and of letters."""
    return [data[start : start + 7] for start in range(0, len(data), 7)]


@pytest.fixture
async def service():
    service = Service()
    app = web.Application()
    app.add_routes([web.post("/query", service.query), web.post("/chat", service.chat)])
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield service
    await runner.cleanup()
