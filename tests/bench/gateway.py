"""What the gateway adds: the same completion asked of the local Bedrock directly and through the gateway, in one run.

Everything is on: keys, rate limits in Redis, holds and postings in PostgreSQL with fsync. Run it from the repository's
root as ``python -m tests.bench.gateway``. It prints a table and writes build/bench/gateway.json.
"""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import asyncpg
from tests.services._servers import embedded
from tests.services.gateway._platform import HAIKU, GatewayProcess, LocalBedrock, Servers

from loam_gateway.migrations import upgrade

from .figures import write

SECONDS = 5.0
WARM_UP = 100
CONNECTIONS = (1, 16)
Call = Callable[[], Awaitable[None]]


def main() -> None:
    figures = asyncio.run(measure())
    write("gateway", figures)
    show(figures)


async def measure() -> dict[str, float]:
    figures: dict[str, float] = {}
    async with platform() as (gateway, bedrock), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        tenant = gateway.new_tenant(
            budget={"monthlyUsd": "1000"}, rateLimit={"requestsPerMinute": 10_000_000, "concurrentRequests": 1000}
        )
        direct, through = direct_call(http, bedrock), gateway_call(http, gateway, tenant.new_key())
        for connections in CONNECTIONS:
            for name, call in (("direct", direct), ("gateway", through)):
                figures |= {
                    f"{name}.{connections}.{key}": value for key, value in (await load(call, connections)).items()
                }
            added = figures[f"gateway.{connections}.p50_ms"] - figures[f"direct.{connections}.p50_ms"]
            figures[f"added.{connections}.p50_ms"] = round(added, 3)
    return figures


@asynccontextmanager
async def platform() -> AsyncIterator[tuple[GatewayProcess, LocalBedrock]]:
    with (
        embedded.postgres() as postgres,
        embedded.valkey() as valkey,
        embedded.seaweedfs("admin", "adminsecret") as s3,
        embedded.scratch_folder() as folder,
    ):
        connection = await asyncpg.connect(postgres.url("postgres"))
        await connection.execute("CREATE DATABASE bench")
        await connection.close()
        await asyncio.to_thread(upgrade, postgres.url("bench"))
        bedrock = LocalBedrock(folder)
        gateway = GatewayProcess(folder, Servers(postgres.url("bench"), valkey, s3, bedrock.url)).start()
        gateway.model("haiku", HAIKU)
        try:
            yield gateway, bedrock
        finally:
            gateway.stop()
            bedrock.stop()


def direct_call(http: aiohttp.ClientSession, bedrock: LocalBedrock) -> Call:
    url = f"{bedrock.url}/model/{HAIKU['modelId']}/converse"
    message = {"role": "user", "content": [{"text": "hello"}]}
    return _posting(http, url, {"messages": [message], "inferenceConfig": {"maxTokens": 64}}, "any")


def gateway_call(http: aiohttp.ClientSession, gateway: GatewayProcess, key: str) -> Call:
    message = {"role": "user", "content": "hello"}
    body = {"model": "haiku", "messages": [message], "max_tokens": 64}
    return _posting(http, f"{gateway.public}/v1/chat/completions", body, key)


def _posting(http: aiohttp.ClientSession, url: str, body: object, bearer: str) -> Call:
    data = json.dumps(body).encode()
    headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}

    async def call() -> None:
        async with http.post(url, data=data, headers=headers) as response:
            answer = await response.read()
            if response.status != 200:
                raise RuntimeError(f"{url} answered {response.status}: {answer[:500]!r}")

    return call


async def load(call: Call, connections: int) -> dict[str, float]:
    for _ in range(WARM_UP):
        await call()
    times: list[float] = []
    begun = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - begun < SECONDS:
            sent = time.perf_counter()
            await call()
            times.append(time.perf_counter() - sent)

    await asyncio.gather(*[caller() for _ in range(connections)])
    hundredths = statistics.quantiles(times, n=100)
    return {
        "requests_per_s": round(len(times) / (time.perf_counter() - begun), 1),
        "p50_ms": round(hundredths[49] * 1000, 3),
        "p95_ms": round(hundredths[94] * 1000, 3),
    }


def show(figures: dict[str, float]) -> None:
    print(f"{'':10}{'connections':>12}{'requests/s':>12}{'p50 ms':>9}{'p95 ms':>9}")
    for connections in CONNECTIONS:
        for name in ("direct", "gateway"):
            values = [figures[f"{name}.{connections}.{key}"] for key in ("requests_per_s", "p50_ms", "p95_ms")]
            print(f"{name:10}{connections:>12}{values[0]:>12.0f}{values[1]:>9.2f}{values[2]:>9.2f}")
        print(f"{'added':10}{connections:>12}{'':>12}{figures[f'added.{connections}.p50_ms']:>9.2f}")


if __name__ == "__main__":
    main()
