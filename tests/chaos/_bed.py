"""What the tests here break, and the load that they break it under."""

import asyncio
import itertools
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
import httpx2 as httpx
import orjson

from loam_gateway.migrations import upgrade

from ..services._servers import embedded
from ..services.gateway._platform import GatewayProcess, LocalBedrock, Servers

_WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "glacier", "harbor", "island", "juniper", "kelp")
_DONE = b"data: [DONE]"


class Replica(GatewayProcess):
    """One of several gateways that a caller cannot tell apart."""

    @classmethod
    def several(cls, count: int, folder: Path, servers: Servers) -> list["Replica"]:
        """They share everything but their ports."""
        first, *others = (cls(folder, servers) for _ in range(count))
        for other in others:
            ports = {name: value for name, value in other.environment.items() if name.endswith("_PORT")}
            other.environment = first.environment | ports
            other.admin_token, other.signing_key = first.admin_token, first.signing_key
        return [first, *others]


@asynccontextmanager
async def replicas_running(replicas: list[Replica]) -> AsyncIterator[None]:
    """Start gateways at the same time, and stop them so."""
    try:
        await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in replicas))
        yield
    finally:
        await asyncio.gather(*(asyncio.to_thread(replica.stop) for replica in replicas))


@dataclass
class Bed:
    """Everything that can be killed. `hold_seconds` is how long a hold outlives its gateway."""

    postgres: embedded.Postgres
    valkey: embedded.Valkey
    bedrock: LocalBedrock
    replicas: list[Replica]
    hold_seconds: int
    folder: Path
    servers: Servers

    async def migrate(self) -> None:
        await asyncio.to_thread(upgrade, self.postgres.url("postgres"))

    async def restart_valkey(self) -> None:
        """Kill it and start it again, empty, a moment later."""
        await asyncio.to_thread(self.valkey.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(self.valkey.start)

    async def restart_replica(self, number: int) -> None:
        """Kill a gateway and start another in its place."""
        await asyncio.to_thread(self.replicas[number].kill)
        await asyncio.to_thread(self.replicas[number].start)

    async def restart_postgres(self) -> None:
        """Stop it as an administrator does, and start it again."""
        await asyncio.to_thread(self.postgres.stop)
        await asyncio.to_thread(self.postgres.start)

    def billed_by(self, name: str) -> dict[str, dict[str, int]]:
        """What the provider would bill, by what the gateway tells it of each call: loam-request, -tenant, -key."""
        answer = httpx.get(f"{self.bedrock.url}/_local/billed?metadata={name}", timeout=30)
        sums: dict[str, dict[str, int]] = answer.raise_for_status().json()["metadata"]
        return sums

    async def verify(self) -> tuple[int, str]:
        """Exit code and output of `ledger verify`."""
        environment = self.replicas[0].environment
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loam_gateway", "ledger", "verify"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()


class How(StrEnum):
    """What a caller wants."""

    PLAIN = "plain"
    STREAM = "stream"
    HANGS_UP = "hangs up"


class End(StrEnum):
    """What became of a request, as its caller saw it."""

    ANSWERED = "answered"
    REFUSED = "refused"
    LEFT = "left by its caller"
    CUT = "cut"


@dataclass(slots=True)
class Told:
    """What a caller knows of its request afterwards. `error` is a code of ours, or why there was none."""

    request_id: str
    how: How
    end: End
    error: str = ""
    cost_usd: str = ""


@dataclass
class Load:
    """Callers who send one request after the other to whichever gateway listens, `at_once` at a time."""

    replicas: list[Replica]
    keys: list[str]
    total: int
    at_once: int
    seed: int = 1
    max_tokens: int = 120
    told: list[Told] = field(default_factory=list)
    again: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._numbers = iter(range(self.total))
        self._turns = itertools.cycle(self.replicas)
        self._moved = asyncio.Condition()
        self._admitted = 0

    async def run(self) -> None:
        """Send everything."""
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            await asyncio.gather(*(self._caller(session) for _ in range(self.at_once)))

    async def admitted(self, count: int) -> None:
        """Wait until so many requests are over that were not refused. Fails when there are never so many."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._admitted >= count or len(self.told) == self.total)
        assert self._admitted >= count, "the load was over before everything was broken"

    async def _caller(self, session: aiohttp.ClientSession) -> None:
        for number in self._numbers:
            how = self._random.choices(list(How), (50, 40, 10))[0]
            told = await self._ask(session, f"chaos-{self.seed}-{number}", how)
            async with self._moved:
                self.told.append(told)
                self._admitted += told.end is not End.REFUSED
                self._moved.notify_all()

    async def _ask(self, session: aiohttp.ClientSession, request_id: str, how: How) -> Told:
        """One request. A gateway that does not listen, or asks to come back, gets it once more, as SDKs do."""
        body = self._body(request_id, how)
        while True:
            try:
                told = await self._send(session, request_id, how, body)
            except aiohttp.ClientConnectorError:
                self.again["nobody listens"] += 1
                await asyncio.sleep(0.02)
                continue
            except (aiohttp.ClientError, TimeoutError) as error:
                return Told(request_id, how, End.CUT, type(error).__name__)
            if told.error != "unavailable":
                return told
            await asyncio.sleep(0.5)

    def _body(self, request_id: str, how: How) -> bytes:
        words = " ".join(self._random.choices(_WORDS, k=self._random.randint(10, 60)))
        content = f"Say: {request_id} {words}"
        body = {"model": "haiku", "messages": [{"role": "user", "content": content}], "max_tokens": self.max_tokens}
        return orjson.dumps(body | ({} if how is How.PLAIN else {"stream": True}))

    async def _send(self, session: aiohttp.ClientSession, request_id: str, how: How, body: bytes) -> Told:
        headers = {
            "authorization": f"Bearer {self._random.choice(self.keys)}",
            "content-type": "application/json",
            "x-request-id": request_id,
        }
        url = f"{next(self._turns).public}/v1/chat/completions"
        async with session.post(url, data=body, headers=headers) as response:
            if response.status != 200:
                error = orjson.loads(await response.read())["error"]
                if error["code"] == "unavailable":
                    self.again[error["message"]] += 1
                refused = error["code"] in ("budget_exceeded", "unavailable")
                return Told(request_id, how, End.REFUSED if refused else End.CUT, error["code"])
            if how is How.PLAIN:
                await response.read()
                return Told(request_id, how, End.ANSWERED, cost_usd=response.headers["x-loam-cost-usd"])
            return await self._listen(response, request_id, how)

    async def _listen(self, response: aiohttp.ClientResponse, request_id: str, how: How) -> Told:
        patience = self._random.randint(1, 12) if how is How.HANGS_UP else None
        lines = 0
        async for line in response.content:
            lines += bool(line.strip())
            if line.startswith(_DONE):
                return Told(request_id, how, End.ANSWERED)
            if line.startswith(b"event: error"):
                return Told(request_id, how, End.CUT, "error event")
            if lines == patience:
                response.close()
                return Told(request_id, how, End.LEFT)
        return Told(request_id, how, End.CUT, "ended early")


@dataclass
class Sampler:
    """Looks at every account of a tenant again and again, and remembers the worst that it saw."""

    worst_nanos: int = -(2**62)
    most_held_nanos: int = 0
    samples: int = 0

    @asynccontextmanager
    async def watching(self, look: Callable[[], Awaitable[Any]]) -> AsyncIterator["Sampler"]:
        """Sample for the time of the context. `look` gives most above cap, and most held, over all accounts."""
        task = asyncio.create_task(self._watch(look))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, look: Callable[[], Awaitable[Any]]) -> None:
        while True:
            row = await look()
            if row is not None:
                self.worst_nanos = max(self.worst_nanos, row["above"])
                self.most_held_nanos = max(self.most_held_nanos, row["held"])
                self.samples += 1
            await asyncio.sleep(0.01)
