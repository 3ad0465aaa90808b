"""A gateway as far as the ledger is concerned, as a process: ``_worker.py DATABASE_URL TENANT spend|hold``.

``spend`` holds and settles until it is refused, and prints how much it spent. ``hold`` takes holds, says so, and waits
to be killed.
"""

import asyncio
import sys

from loam_gateway.adapters.postgres import connect
from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import Hold, HoldRequest, Kind, Price, Settlement, Tokens
from loam_shared.errors import BudgetExceededError


def request(tenant: str, nanos: int) -> HoldRequest:
    return HoldRequest(
        root_request_id="r",
        tenant=tenant,
        key_id="backend",
        kind=Kind.COMPLETION,
        model="m",
        fixed_nanos=nanos,
        lifetime_seconds=0.2 if nanos == 7 else 60,
    )


async def spend(ledger: Ledger, tenant: str) -> int:
    spent = 0
    while True:
        try:
            hold = await ledger.hold(request(tenant, 10))
        except BudgetExceededError:
            return spent
        assert isinstance(hold, Hold)
        settlement = Settlement(cost_nanos=9, tokens=Tokens(input=9), price=Price(input=1_000_000))
        spent += (await ledger.settle(hold, settlement)).cost_nanos


async def main() -> None:
    url, tenant, task = sys.argv[1:]
    pool = await connect(url, 4)
    async with pool, Ledger(pool) as ledger:
        if task == "spend":
            print("ready", flush=True)
            sys.stdin.readline()
            print(sum(await asyncio.gather(*(spend(ledger, tenant) for _ in range(16)))), flush=True)
        else:
            for _ in range(5):
                await ledger.hold(request(tenant, 7))
            print("held", flush=True)
            await asyncio.Event().wait()


asyncio.run(main())
