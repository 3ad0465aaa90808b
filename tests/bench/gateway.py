"""What the gateway adds, in one run against one provider: asked directly, through the gateway, through LiteLLM's proxy.

Everything is on in the gateway: keys, rate limits in Valkey, the response cache (looked up and missed, for no two
requests are alike), holds and postings in PostgreSQL with fsync, metrics. One worker each, all on this machine.
LiteLLM's proxy is measured where it is installed: LOAM_BENCH_LITELLM names its executable, else it is looked for on the
PATH and in build/litellm, where ``make bench-litellm`` puts it.

Run it from the repository's root as ``python -m tests.bench.gateway``. It prints a table and writes
build/bench/gateway.json.
"""

import asyncio
import os
import shutil
import statistics
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import orjson
import psutil
import uvloop
from tests.services._servers import embedded
from tests.services.gateway._platform import HAIKU, GatewayProcess, Servers, answers

from loam_gateway.migrations import upgrade

from .client import Client, Target, closed_loop, open_loop
from .figures import write

SECONDS = 6.0
WARM_UP_SECONDS = 2.0
CONNECTIONS = (1, 16)
RATE = 200.0
STREAM_RATE = 40.0
STREAM_PACE = 0.02
OPEN_STREAMS = 1000
# Slow enough for the thousand to be open all at once.
OPEN_PACE = 5.0
LITELLM_KEY = f"sk-{uuid.uuid4().hex}"
LITELLM = Path("build/litellm/bin/litellm")
# An answer is bounded, as a hold needs it; what is asked is a sentence or two.
QUESTION = "Which of the tenants of this platform can see what the others have asked, and what would it cost them? "
# How to know the processes whose processor time is measured.
COMMANDS = {
    "gateway": lambda command: command[1:] == ["-m", "loam_gateway"],
    "litellm": lambda command: any(part.endswith("/litellm") for part in command[:2]),
}
Figures = dict[str, float]


def main() -> None:
    figures = uvloop.run(measure())
    write("gateway", figures)
    show(figures)


async def measure() -> Figures:
    with provider() as url:
        figures = await measure_gateway(url)
        # Whatever becomes of the other, these are there.
        write("gateway", figures)
        with litellm(url) as proxy:
            if proxy:
                peer = {"litellm": through(proxy, LITELLM_KEY)}
                figures |= await fastest(peer)
                figures["ratio_litellm"] = ratio(figures, "gateway.16.requests_per_s", "litellm.16.requests_per_s")
    return figures


async def measure_gateway(url: str) -> Figures:
    async with platform(url) as (gateway, _provider):
        tenant = gateway.new_tenant(
            budget={"monthlyUsd": "1000"}, rateLimit={"requestsPerMinute": 10_000_000, "concurrentRequests": 10_000}
        )
        key = tenant.new_key()
        plain = {"direct": direct(url), "gateway": through(gateway.public, key)}
        paced = {"direct": direct(url, STREAM_PACE), "gateway": through(gateway.public, key, STREAM_PACE)}
        figures = await fastest(plain) | await steady(plain) | await first_words(paced)
        figures["streams_mb"] = await memory(through(gateway.public, key, OPEN_PACE))
    return figures


def ratio(figures: Figures, one: str, other: str) -> float:
    return round(figures[one] / figures[other], 2)


@asynccontextmanager
async def platform(url: str | None = None) -> AsyncIterator[tuple[GatewayProcess, str]]:
    """A gateway with all that it needs, and the provider at `url`, or one of its own."""
    with (
        embedded.postgres() as postgres,
        embedded.valkey() as valkey,
        embedded.seaweedfs("admin", "adminsecret") as s3,
        embedded.scratch_folder() as folder,
        provider() as own,
    ):
        connection = await asyncpg.connect(postgres.url("postgres"))
        await connection.execute("CREATE DATABASE bench")
        await connection.close()
        await asyncio.to_thread(upgrade, postgres.url("bench"))
        more = {"LOAM_CACHE_SECONDS": "300"}
        gateway = GatewayProcess(folder, Servers(postgres.url("bench"), valkey, s3, url or own, more)).start()
        gateway.model("haiku", HAIKU)
        try:
            yield gateway, url or own
        finally:
            gateway.stop()


@contextmanager
def provider() -> Iterator[str]:
    """The address of a provider that costs next to nothing."""
    [port] = embedded.free_ports(1)
    with embedded.scratch_folder() as folder:
        (folder / "provider").mkdir()
        command = [sys.executable, "-m", "tests.bench.provider", str(port)]
        server = embedded.Server(command, folder / "provider")
        url = f"http://{embedded.HOST}:{port}"
        server.start(lambda: answers(url), env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        try:
            yield url
        finally:
            server.stop()


@contextmanager
def litellm(url: str) -> Iterator[str | None]:
    """The address of LiteLLM's proxy before the provider at `url`; None where it is not installed.

    It speaks OpenAI's protocol to the provider, which it need neither sign nor translate, and has no database and only
    its master key, which it does not start without: little is asked of it but to pass on.
    """
    executable = (
        os.environ.get("LOAM_BENCH_LITELLM") or shutil.which("litellm") or (LITELLM if LITELLM.exists() else "")
    )
    if not executable:
        yield None
        return
    [port] = embedded.free_ports(1)
    model = {"model": "openai/mock", "api_base": f"{url}/v1", "api_key": "any"}
    config = {"model_list": [{"model_name": "haiku", "litellm_params": model}]}
    with embedded.scratch_folder() as folder:
        (folder / "litellm").mkdir()
        (folder / "config.json").write_bytes(orjson.dumps(config))
        command = [str(Path(executable).absolute()), "--config", str(folder / "config.json")]
        command += ["--host", embedded.HOST, "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        server = embedded.Server(command, folder / "litellm")
        quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": LITELLM_KEY}
        server.start(lambda: answers(f"http://{embedded.HOST}:{port}/health/liveliness"), env=os.environ | quiet)
        try:
            yield f"http://{embedded.HOST}:{port}"
        finally:
            server.stop()


def direct(url: str, pace: float | None = None) -> Target:
    """The provider asked as the gateway asks it."""

    def body(number: int) -> bytes:
        message = {"role": "user", "content": [{"text": prompt(number, pace)}]}
        return orjson.dumps({"messages": [message], "inferenceConfig": {"maxTokens": 64}})

    operation = "converse" if pace is None else "converse-stream"
    return Target(f"{url}/model/{HAIKU['modelId']}/{operation}", "any", body)


def through(url: str, key: str, pace: float | None = None) -> Target:
    """The same question in OpenAI's words."""

    def body(number: int) -> bytes:
        message = {"role": "user", "content": prompt(number, pace)}
        return orjson.dumps({"model": "haiku", "messages": [message], "max_tokens": 64, "stream": pace is not None})

    return Target(f"{url}/v1/chat/completions", key, body)


def prompt(number: int, pace: float | None) -> str:
    return f"Question {number}, pace={pace or 0}: {QUESTION}"


async def fastest(targets: Mapping[str, Target]) -> Figures:
    """Each as fast as it can, by so many callers at a time."""
    figures: Figures = {}
    for name, target in targets.items():
        async with Client(target) as client:
            await closed_loop(client, max(CONNECTIONS), WARM_UP_SECONDS)
            for connections in CONNECTIONS:
                used = processor_seconds(name)
                times, seconds = await closed_loop(client, connections, SECONDS)
                figures[f"{name}.{connections}.requests_per_s"] = round(len(times) / seconds, 1)
                if name in COMMANDS:
                    spent = processor_seconds(name) - used
                    figures[f"{name}.{connections}.cpu_ms"] = round(spent / len(times) * 1000, 3)
                figures |= percentiles(f"{name}.{connections}", times)
    return figures


async def steady(targets: Mapping[str, Target]) -> Figures:
    """What the gateway adds to the latency of a provider that is asked so many times a second."""
    figures: Figures = {}
    for name, target in targets.items():
        async with Client(target) as client:
            await open_loop(client.call, RATE, WARM_UP_SECONDS)
            figures |= percentiles(f"{name}.steady", await open_loop(client.call, RATE, SECONDS))
    for percent in ("p50", "p95"):
        figures[f"added_ms_{percent}"] = difference(figures, f"steady.{percent}_ms")
    return figures


async def first_words(targets: Mapping[str, Target]) -> Figures:
    """How much later the first words of a stream come than from the provider."""
    figures: Figures = {}
    for name, target in targets.items():
        async with Client(target) as client:
            await open_loop(client.first_words, STREAM_RATE, WARM_UP_SECONDS)
            times = await open_loop(client.first_words, STREAM_RATE, SECONDS)
            figures |= percentiles(f"{name}.first_words", times)
    return figures | {"first_token_delay_ms_p95": difference(figures, "first_words.p95_ms")}


async def memory(target: Target) -> float:
    """The gateway's resident set in MiB while so many streams are open."""
    async with Client(target) as client:
        await asyncio.gather(*[client.open_stream() for _ in range(OPEN_STREAMS)])
        return round(sum(process.memory_info().rss for process in processes("gateway")) / 2**20, 1)


def processor_seconds(name: str) -> float:
    """The processor time that all of these have used, however busy the machine is with other things."""
    return sum(sum(process.cpu_times()[:2]) for process in processes(name))


def processes(name: str) -> list[psutil.Process]:
    """The gateway's or the proxy's, without what starts them."""
    running = [each for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
    return [each for each in running if name in COMMANDS and COMMANDS[name](each.cmdline())]


def percentiles(name: str, times: list[float]) -> Figures:
    hundredths = statistics.quantiles(times, n=100)
    return {f"{name}.p50_ms": round(hundredths[49] * 1000, 3), f"{name}.p95_ms": round(hundredths[94] * 1000, 3)}


def difference(figures: Figures, figure: str) -> float:
    return round(figures[f"gateway.{figure}"] - figures[f"direct.{figure}"], 3)


def show(figures: Figures) -> None:
    for name, value in figures.items():
        print(f"{name:32}{value:>12}")


if __name__ == "__main__":
    main()
