"""Everything that a pipeline needs, as the real processes: gateway, Bedrock's stand-in, worker, retrieval.

The tests play the operator (admin API) and the user (public API).
"""

import asyncio
import base64
import contextlib
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import lancedb
import psutil

from loam_shared.credentials import Caller, hash_api_key, new_api_key, new_signing_key, sign_caller
from loam_shared.index import database_uri

from .._servers import embedded

HOST = embedded.HOST
SPEC: dict[str, Any] = {
    "sources": [{"uploads": {}}],
    "chunking": {"strategy": "Recursive", "maxTokens": 60, "overlapTokens": 10},
    "embedding": {"model": "titan-embed", "dimensions": 256},
    "retrieval": {"mode": "Hybrid", "topK": 8, "candidates": 50},
    "generation": {"model": "claude-haiku", "systemPrompt": "Answer from the handbook only.", "maxTokens": 300},
}
_MODELS = {
    "titan-embed": {
        "modelId": "amazon.titan-embed-text-v2:0",
        "capabilities": ["Embed"],
        "price": {"inputPerMillion": "0.02"},
    },
    "claude-haiku": {
        "modelId": "anthropic.claude-3-haiku-20240307-v1:0",
        "capabilities": ["Chat", "Stream"],
        "price": {"inputPerMillion": "0.25", "outputPerMillion": "1.25"},
        "maxOutputTokens": 4096,
    },
    "cohere-rerank": {
        "modelId": "cohere.rerank-v3-5:0",
        "capabilities": ["Rerank"],
        "price": {"perThousandQueries": "2.00"},
    },
}
_SCOPES = ["ai:complete", "ai:embed", "rag:query", "rag:write", "usage:read"]


@dataclass
class Pod:
    """One of Loam's processes, which may be killed and started again."""

    module: str
    folder: Path
    environment: dict[str, str]
    port: int
    _server: embedded.Server | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server = embedded.Server([sys.executable, "-m", self.module], self.folder)
        environment = os.environ | self.environment | {"LOAM_PORT": str(self.port)}
        self._server.start(lambda: embedded._answers(f"{self.url}/healthz"), env=environment)

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @property
    def running(self) -> bool:
        return self._server is not None

    @property
    def process(self) -> psutil.Process:
        """The process itself, not the leash that it is on."""
        assert self._server is not None
        assert self._server._process is not None
        return psutil.Process(self._server._process.pid).children()[0]


@dataclass
class Pipeline:
    """A tenant's pipeline: its pods, and a user with a key."""

    platform: "Platform"
    tenant: str
    key: str
    folder: Path
    pod_environment: dict[str, str]
    retrieval: Pod
    name: str = "handbook"

    def worker(self, **settings: str) -> Pod:
        """A worker, not yet started."""
        folder = self.folder / f"worker-{uuid.uuid4().hex[:6]}"
        [port] = embedded.free_ports(1)
        return Pod("loam_ingestion", folder, self.pod_environment | settings, port)

    @contextlib.contextmanager
    def working(self, **settings: str) -> Iterator[Pod]:
        """A worker for the time of the context."""
        pod = self.worker(**settings)
        pod.start()
        try:
            yield pod
        finally:
            pod.stop()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """A call to the public API; its JSON, or text where it answers with events."""
        url = f"{self.platform.public}/v1/pipelines/{self.name}{path}"
        headers = {"authorization": f"Bearer {self.key}"}
        async with self.platform.session.request(method, url, json=body, headers=headers) as response:
            text = await response.text()
            assert response.status < 400, (response.status, text)
            return json.loads(text) if response.content_type == "application/json" else text

    async def upload(self, name: str, content: bytes) -> str:
        """The document's id."""
        body = {"name": name, "contentBase64": base64.b64encode(content).decode()}
        return str((await self.call("POST", "/documents", body))["documentId"])

    async def documents(self) -> dict[str, Any]:
        """The documents by name."""
        return {one["name"]: one for one in (await self.call("GET", "/documents?limit=1000"))["documents"]}

    async def settled(self, seconds: float = 60) -> dict[str, Any]:
        """The documents once nothing waits or is under way."""
        async with asyncio.timeout(seconds):
            while True:
                documents = await self.documents()
                busy = await self.platform.jobs(self.tenant)
                if not busy and all(one["status"] in {"Ready", "Failed"} for one in documents.values()):
                    return documents
                await asyncio.sleep(0.05)

    async def query(self, text: str, **options: Any) -> list[dict[str, Any]]:
        """Matches of a search, for which the retrieval service is started at the first."""
        if not self.retrieval.running:
            self.retrieval.start()
        found = await self.call("POST", "/query", {"query": text} | options)
        return list(found["matches"])

    async def rows(self) -> list[dict[str, Any]]:
        """Every chunk of the version that counts, as the index holds it."""
        pointer = await self.pointer()
        if pointer is None:
            return []
        environment = self.pod_environment
        options = {
            "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
            "aws_region": environment["AWS_REGION"],
            "aws_endpoint": environment["AWS_ENDPOINT_URL_S3"],
            "aws_virtual_hosted_style_request": "false",
            "allow_http": "true",
        }
        uri = database_uri(environment["LOAM_STORAGE_BUCKET"], environment["LOAM_STORAGE_PREFIX"])
        database = await lancedb.connect_async(uri, storage_options=options)
        table = await database.open_table(pointer["table"], version=pointer["tableVersion"])
        rows = await table.query().select(["chunk_id", "source", "text"]).to_list()
        assert len(rows) == pointer["chunks"]
        return sorted(rows, key=lambda row: (row["source"], row["chunk_id"]))

    async def chunks(self) -> list[tuple[str, str]]:
        """Every chunk of the version that counts, by document name and text."""
        return [(row["source"], row["text"]) for row in await self.rows()]

    async def pointer(self) -> dict[str, Any] | None:
        """What the gateway says counts, in the form retrieval is told it."""
        row = await self.platform.database.fetchrow(
            "SELECT v.* FROM pipelines p JOIN index_versions v"
            " ON (v.tenant, v.pipeline, v.version) = (p.tenant, p.name, p.index_version) WHERE p.tenant = $1",
            self.tenant,
        )
        if row is None or row["table_version"] is None:
            return None
        return {
            "table": row["table_name"],
            "tableVersion": row["table_version"],
            "chunks": row["chunks"],
            "indexVersion": row["version"],
            "embedding": json.loads(row["recipe"])["embedding"],
        }

    def token(self, **claims: Any) -> str:
        """A caller token as the gateway signs it."""
        who = {"tenant": self.tenant, "key_id": "user-key", "request_id": uuid.uuid4().hex, "pipeline": self.name}
        caller = Caller(**(who | {name: value for name, value in claims.items() if name not in {"service", "key"}}))
        key = claims.get("key", self.platform.signing_key)
        return sign_caller(caller, service=claims.get("service", "retrieval"), lifetime_seconds=60, key=key)


@dataclass
class Platform:
    """A gateway on real servers."""

    public: str
    internal: str
    admin: str
    bedrock: str
    pool: Pod
    admin_token: str
    signing_key: Any
    session: aiohttp.ClientSession
    database: asyncpg.Connection
    folder: Path
    gateway: embedded.Server
    gateway_environment: dict[str, str]

    def start_gateway(self) -> None:
        """Start the gateway; after it was killed, with all that it had."""
        environment = os.environ | self.gateway_environment
        self.gateway.start(lambda: embedded._answers(f"{self.public}/v1/health"), env=environment)

    async def put(self, path: str, body: Any) -> Any:
        """The operator's PUT."""
        headers = {"authorization": f"Bearer {self.admin_token}"}
        async with self.session.put(f"{self.admin}/admin/v1/{path}", json=body, headers=headers) as response:
            text = await response.text()
            assert response.status < 300, (response.status, text)
            return json.loads(text) if text else None

    async def jobs(self, tenant: str) -> int:
        """Jobs that wait or are under way."""
        return int(await self.database.fetchval("SELECT count(*) FROM jobs WHERE tenant = $1", tenant))

    async def embedded_texts(self) -> int:
        """How many texts the embedding model was ever given."""
        async with self.session.get(f"{self.bedrock}/_local/billed") as response:
            billed = json.loads(await response.text())
        return int(billed.get("models", billed).get("amazon.titan-embed-text-v2:0", {}).get("calls", 0))

    @contextlib.asynccontextmanager
    async def pipeline(self, spec: dict[str, Any] | None = None, **tenant_settings: Any) -> AsyncIterator[Pipeline]:
        """A pipeline of a tenant of its own, without any of its pods running yet. Mode Shared: the pool serves it."""
        tenant, key, workload_key = f"t{uuid.uuid4().hex[:10]}", new_api_key(), new_api_key()
        body = {"uid": tenant, "models": list(_MODELS), "budget": {"monthlyUsd": "100"}} | tenant_settings
        grant = (await self.put(f"tenants/{tenant}", body))["storage"]
        await self._key(tenant, "user-key", key, scopes=_SCOPES)
        await self._key(tenant, "pods-key", workload_key, workload="handbook")
        folder = self.folder / tenant
        folder.mkdir()
        (folder / "key").write_text(workload_key)
        (folder / "pipeline.json").write_text(json.dumps(spec or SPEC))
        environment = _pod_environment(tenant, folder, self.internal, grant)
        [port] = embedded.free_ports(1)
        is_shared = (spec or SPEC).get("serving", {}).get("mode") == "Shared"
        retrieval = self.pool if is_shared else Pod("loam_retrieval", folder / "retrieval", environment, port)
        try:
            endpoint = {"uid": tenant, "spec": spec or SPEC, "endpoint": retrieval.url}
            await self.put(f"tenants/{tenant}/pipelines/handbook", endpoint)
            yield Pipeline(self, tenant, key, folder, environment, retrieval)
        finally:
            if not is_shared:
                retrieval.stop()

    async def _key(self, tenant: str, name: str, key: str, **more: Any) -> None:
        await self.put(
            f"tenants/{tenant}/keys/{name}", {"name": name, "hashes": [{"sha256": hash_api_key(key)}]} | more
        )


def _pod_environment(tenant: str, folder: Path, internal: str, grant: dict[str, Any]) -> dict[str, str]:
    return {
        "LOAM_TENANT": tenant,
        "LOAM_PIPELINE": "handbook",
        "LOAM_CONFIG_FILE": str(folder / "pipeline.json"),
        "LOAM_GATEWAY_URL": internal,
        "LOAM_GATEWAY_KEY_FILE": str(folder / "key"),
        "LOAM_STORAGE_BUCKET": grant["bucket"],
        "LOAM_STORAGE_PREFIX": grant["prefix"],
        "LOAM_SOURCES_DIR": str(folder / "sources"),
        "AWS_ACCESS_KEY_ID": grant["accessKeyId"],
        "AWS_SECRET_ACCESS_KEY": grant["secretAccessKey"],
        "AWS_REGION": grant["region"],
        "AWS_ENDPOINT_URL_S3": grant["endpoint"],
    }


@contextlib.asynccontextmanager
async def platform(
    postgres: embedded.Postgres, template: str, valkey_url: str, s3_endpoint: str, **settings: str
) -> AsyncIterator[Platform]:
    """A running gateway with two models, on a database of its own; `settings` are more variables for it."""
    database = f"rag{uuid.uuid4().hex[:8]}"
    administrator = await asyncpg.connect(postgres.url("template1"))
    await administrator.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
    await administrator.close()
    with embedded.scratch_folder() as folder, contextlib.ExitStack() as stack:
        ports = embedded.free_ports(5)
        bedrock = Pod("loam_bedrock_local", folder / "bedrock", {"LOAM_HOST": HOST}, ports[3])
        bedrock.start()
        stack.callback(bedrock.stop)
        signing_key, admin_token = new_signing_key(), uuid.uuid4().hex
        # Tests play faults on questions that were asked before, and count what models were asked.
        urls = {"LOAM_DATABASE_URL": postgres.url(database), "LOAM_REDIS_URL": valkey_url, "LOAM_CACHE_SECONDS": "0"}
        pool = Pod("loam_retrieval", folder / "pool", {"LOAM_GATEWAY_URL": f"http://{HOST}:{ports[1]}"}, ports[4])
        urls["LOAM_RETRIEVAL_POOL_URL"] = pool.url
        stack.callback(pool.stop)
        environment = urls | _gateway_environment(folder, signing_key, admin_token, s3_endpoint, bedrock.url, ports)
        gateway = embedded.Server([sys.executable, "-m", "loam_gateway"], _made(folder / "gateway"))
        public, internal, admin = (f"http://{HOST}:{port}" for port in ports[:3])
        connection = await asyncpg.connect(postgres.url(database))
        # Starting a process blocks the loop, which then does not see that idle connections were closed meanwhile.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            made = Platform(
                *(public, internal, admin, bedrock.url, pool, admin_token, signing_key, session, connection, folder),
                *(gateway, environment | settings),
            )
            made.start_gateway()
            stack.callback(gateway.stop)
            for name, model in _MODELS.items():
                await made.put(f"models/{name}", {"uid": name, "provider": "Bedrock", "regions": ["us-east-1"]} | model)
            yield made
        await connection.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _gateway_environment(
    folder: Path, signing_key: Any, admin_token: str, s3_endpoint: str, bedrock: str, ports: list[int]
) -> dict[str, str]:
    secrets = {
        "LOAM_ADMIN_TOKEN_FILE": admin_token,
        "LOAM_ENCRYPTION_KEY_FILE": base64.b64encode(os.urandom(32)).decode(),
        "LOAM_SIGNING_KEY_FILE": json.dumps(signing_key.as_dict(private=True)),
    }
    files = {name: folder / name.lower() for name in secrets}
    for name, path in files.items():
        path.write_text(secrets[name])
        path.chmod(0o600)
    listeners = dict(zip(("LOAM_PUBLIC_PORT", "LOAM_INTERNAL_PORT", "LOAM_ADMIN_PORT"), map(str, ports), strict=False))
    return {
        **{name: str(path) for name, path in files.items()},
        **listeners,
        "AWS_ACCESS_KEY_ID": "admin",
        "AWS_SECRET_ACCESS_KEY": "adminsecret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": s3_endpoint,
        "AWS_ENDPOINT_URL_IAM": s3_endpoint,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock,
        # A worker that was killed keeps its pipeline for a lease, and nobody wants to wait for long here.
        "LOAM_LEASE_SECONDS": "2",
        "LOAM_RETRY_SECONDS": "0.2",
    }
