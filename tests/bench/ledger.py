"""How many hold and settle pairs a second one gateway's ledger does, fsync on, on one hot tenant and on many.

``python -m tests.bench.ledger`` starts a PostgreSQL of its own and writes build/bench/ledger.json.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from loam_gateway.adapters.postgres import connect
from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import Hold, HoldRequest, Kind, Period, Policy, Price, Scope, Settlement, Tokens
from loam_gateway.migrations import upgrade

from ..services._servers import embedded
from .figures import write

_SECONDS = 4.0
_WARM_UP_SECONDS = 1.0
_MANY = 256
_SETTLEMENT = Settlement(cost_nanos=750, tokens=Tokens(input=750), price=Price(input=1_000_000), provider="Bedrock")


async def pair(ledger: Ledger, times: list[float], tenant: str = "acme") -> None:
    """One request's money, from the hold to the posting; the hold's seconds go to `times`."""
    request = HoldRequest(
        *("bench", tenant, "backend", Kind.COMPLETION, "claude-haiku", 500),
        output_nanos_per_million=1_250_000,
        max_output_tokens=400,
        user="ada",
    )
    began = time.perf_counter()
    hold = await ledger.hold(request)
    times.append(time.perf_counter() - began)
    assert isinstance(hold, Hold)
    await ledger.settle(hold, _SETTLEMENT)


async def measure(ledger: Ledger, in_flight: int, seconds: float, tenants: Sequence[str] = ("acme",)) -> dict[str, Any]:
    """Pairs a second, the hold's latency, and the gateway's own CPU, with so many requests at a time."""
    times: list[float] = []
    began, cpu_began = time.perf_counter(), time.process_time()

    async def caller(tenant: str) -> None:
        while time.perf_counter() - began < seconds:
            await pair(ledger, times, tenant)

    await asyncio.gather(*(caller(tenants[number % len(tenants)]) for number in range(in_flight)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    cuts = statistics.quantiles(times, n=100)
    return {
        "inFlight": in_flight if len(tenants) == 1 else f"{in_flight}_tenants",
        "pairsPerSecond": round(len(times) / took),
        "holdP50Ms": round(cuts[49] * 1000, 2),
        "holdP95Ms": round(cuts[94] * 1000, 2),
        "cpuUs": round(cpu / len(times) * 1e6),
    }


async def run(url: str) -> list[dict[str, Any]]:
    """All measurements, on a ledger that adds up afterwards."""
    pool = await connect(url, 4)
    async with pool, Ledger(pool) as ledger:
        many = [f"tenant-{number}" for number in range(_MANY)]
        for tenant in ("acme", *many):
            await pool.execute("INSERT INTO tenants (name, uid) VALUES ($1, 'uid')", tenant)
            await pool.execute("INSERT INTO api_keys (tenant, key_id, name) VALUES ($1, 'backend', '')", tenant)
            await ledger.set_policy(Policy(tenant, Scope.TENANT, Period.MONTH, 10**15))
        await measure(ledger, 16, _WARM_UP_SECONDS)
        results = [await measure(ledger, in_flight, _SECONDS) for in_flight in (1, 16, 64)]
        await measure(ledger, _MANY, _WARM_UP_SECONDS, many)
        results.append(await measure(ledger, _MANY, _SECONDS, many))
        assert await ledger.verify() == []
    return results


def main() -> None:
    """Measure, print and write."""
    with embedded.postgres() as server:
        upgrade(server.url("postgres"))
        results = uvloop.run(run(server.url("postgres")))
    for result in results:
        print(
            "{inFlight:>11} in flight: {pairsPerSecond:>6} pairs/s, hold p50 {holdP50Ms} ms, p95 {holdP95Ms} ms, "
            "{cpuUs} µs of the gateway's CPU a pair".format(**result)
        )
    write(
        "ledger", {f"{name}_{r['inFlight']}": value for r in results for name, value in r.items() if name != "inFlight"}
    )


if __name__ == "__main__":
    main()
