"""How many hold and settle pairs a second one gateway's ledger does, fsync on, all on one hot tenant.

``python -m tests.bench.ledger`` starts a PostgreSQL of its own and writes build/bench/ledger.json.
"""

import asyncio
import statistics
import time
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
_SETTLEMENT = Settlement(cost_nanos=750, tokens=Tokens(input=750), price=Price(input=1_000_000), provider="Bedrock")


async def pair(ledger: Ledger, times: list[float]) -> None:
    """One request's money, from the hold to the posting; the hold's seconds go to `times`."""
    request = HoldRequest(
        *("bench", "acme", "backend", Kind.COMPLETION, "claude-haiku", 500),
        output_nanos_per_million=1_250_000,
        max_output_tokens=400,
        user="ada",
    )
    began = time.perf_counter()
    hold = await ledger.hold(request)
    times.append(time.perf_counter() - began)
    assert isinstance(hold, Hold)
    await ledger.settle(hold, _SETTLEMENT)


async def measure(ledger: Ledger, in_flight: int, seconds: float) -> dict[str, Any]:
    """Pairs a second and the hold's latency with so many requests at a time."""
    times: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            await pair(ledger, times)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    took = time.perf_counter() - began
    cuts = statistics.quantiles(times, n=100)
    return {
        "inFlight": in_flight,
        "pairsPerSecond": round(len(times) / took),
        "holdP50Ms": round(cuts[49] * 1000, 2),
        "holdP95Ms": round(cuts[94] * 1000, 2),
    }


async def run(url: str) -> list[dict[str, Any]]:
    """All measurements, on a ledger that adds up afterwards."""
    pool = await connect(url, 4)
    async with pool, Ledger(pool) as ledger:
        await pool.execute("INSERT INTO tenants (name, uid) VALUES ('acme', 'uid')")
        await pool.execute("INSERT INTO api_keys (tenant, key_id, name) VALUES ('acme', 'backend', 'backend')")
        await ledger.set_policy(Policy("acme", Scope.TENANT, Period.MONTH, 10**15))
        await measure(ledger, 16, _WARM_UP_SECONDS)
        results = [await measure(ledger, in_flight, _SECONDS) for in_flight in (1, 16, 64)]
        assert await ledger.verify() == []
    return results


def main() -> None:
    """Measure, print and write."""
    with embedded.postgres() as server:
        upgrade(server.url("postgres"))
        results = uvloop.run(run(server.url("postgres")))
    for result in results:
        print(
            "{inFlight:>4} in flight: {pairsPerSecond:>6} pairs/s, hold p50 {holdP50Ms} ms, p95 {holdP95Ms} ms".format(
                **result
            )
        )
    write(
        "ledger", {f"{name}_{r['inFlight']}": value for r in results for name, value in r.items() if name != "inFlight"}
    )


if __name__ == "__main__":
    main()
