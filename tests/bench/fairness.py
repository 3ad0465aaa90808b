"""What one tenant's burst costs another: B's latency alone, and while A sends a thousand requests at once.

Each tenant has a client process of its own, so that B's clock does not stand still while A's client is busy; A's runs
at a lower priority, because in life it would be another machine. Run it from the repository's root as
``python -m tests.bench.fairness``. It prints a table and writes build/bench/fairness.json.
"""

import asyncio
import json
import os
import statistics
import sys
import time
import uuid

import aiohttp

from .figures import write
from .gateway import platform

BURST = 1000
ROUNDS = 5
RATE = 50.0
QUIET_SECONDS = 6.0
# A long line of requests must not be refused for its length.
GENEROUS = {"requestsPerMinute": 10_000_000, "concurrentRequests": 10_000}


def main() -> None:
    figures = asyncio.run(measure())
    write("fairness", figures)
    show(figures)


async def measure() -> dict[str, float]:
    async with platform() as (gateway, _bedrock):
        loud, quiet = (gateway.new_tenant(budget={"monthlyUsd": "1000"}, rateLimit=GENEROUS) for _ in range(2))
        url, loud_key, quiet_key = f"{gateway.public}/v1/chat/completions", loud.new_key(), quiet.new_key()
        await steady(url, quiet_key, asyncio.create_task(asyncio.sleep(1)))
        alone = await steady(url, quiet_key, asyncio.create_task(asyncio.sleep(QUIET_SECONDS)))
        burst = asyncio.create_task(bursts(url, loud_key))
        beside = await steady(url, quiet_key, burst)
        seconds = await burst
    return {
        "alone.p50_ms": percentile(alone, 50),
        "alone.p95_ms": percentile(alone, 95),
        "beside_burst.p50_ms": percentile(beside, 50),
        "beside_burst.p95_ms": percentile(beside, 95),
        "rise_ms_p95": round(percentile(beside, 95) - percentile(alone, 95), 3),
        "burst.requests_per_s": round(BURST * ROUNDS / seconds, 1),
        "samples": len(beside),
    }


def percentile(times: list[float], hundredth: int) -> float:
    return round(statistics.quantiles(times, n=100)[hundredth - 1] * 1000, 3)


async def steady(url: str, key: str, until: "asyncio.Task[object]") -> list[float]:
    """The latencies of requests at a steady rate, sent on time whether or not the last was answered."""
    loop, times = asyncio.get_running_loop(), []

    async def call(http: aiohttp.ClientSession) -> None:
        sent = time.perf_counter()
        await post(http, url, key)
        times.append(time.perf_counter() - sent)

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as calls:
        due = loop.time()
        while not until.done():
            calls.create_task(call(http))
            due += 1 / RATE
            await asyncio.sleep(max(0, due - loop.time()))
    return times


async def bursts(url: str, key: str) -> float:
    """Let another process send its bursts. Returns how many seconds they took in all."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.fairness", "burst", url, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate(key.encode())
    if process.returncode:
        raise RuntimeError("the burst failed")
    return float(said)


async def burst(url: str, key: str) -> float:
    seconds = 0.0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            await asyncio.gather(*[post(http, url, key) for _ in range(BURST)])
            seconds += time.perf_counter() - begun
    return seconds


async def post(http: aiohttp.ClientSession, url: str, key: str) -> None:
    message = {"role": "user", "content": f"hello {uuid.uuid4()}"}
    data = json.dumps({"model": "haiku", "messages": [message], "max_tokens": 64}).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    async with http.post(url, data=data, headers=headers) as response:
        answer = await response.read()
        if response.status != 200:
            raise RuntimeError(f"{url} answered {response.status}: {answer[:500]!r}")


def show(figures: dict[str, float]) -> None:
    for name, value in figures.items():
        print(f"{name:22}{value:>12}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["burst"]:
        os.nice(10)
        print(asyncio.run(burst(sys.argv[2], sys.stdin.readline().strip())))
    else:
        main()
