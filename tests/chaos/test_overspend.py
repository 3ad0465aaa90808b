"""Whatever is killed under load, no cap is ever exceeded, and afterwards the ledger equals what the provider billed."""

import asyncio
import os
import time
from collections import Counter, defaultdict
from decimal import Decimal

import pytest

from loam_gateway.adapters.postgres import FAILURES

from ..bench.figures import write
from ..services.gateway._platform import say
from ._bed import End, Load, Sampler, Told

REQUESTS = int(os.environ.get("LOAM_CHAOS_REQUESTS", "10000"))
AT_ONCE = 300
# How many requests of the load's size the caps cover.
COVERED = REQUESTS // 10
# What haiku costs, in nano-dollars per token.
INPUT_NANOS, OUTPUT_NANOS = 250, 1250
REAP_SECONDS = 5
# What no caller is to see, whatever breaks.
FAULTS_OF_OURS = ("internal", "invalid_api_key", "forbidden", "not_found", "rate_limited", "TimeoutError")

_WORST = (
    "SELECT max(held + posted - cap) AS above, max(held) AS held FROM accounts WHERE tenant = $1 AND cap IS NOT NULL"
)
_HELD = "SELECT coalesce(sum(held), 0) FROM accounts WHERE tenant = $1"
_ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY posted_at"
_ACCOUNTS = """
SELECT a.scope::text, a.subject, a.posted, a.held, a.overrun, coalesce(sum(e.cost), 0)::bigint AS entries
FROM accounts AS a LEFT JOIN entries AS e ON e.tenant = a.tenant AND a.id = ANY (e.accounts)
WHERE a.tenant = $1 GROUP BY a.id
"""


def cost_of_one(tenant) -> Decimal:
    """What a request costs that is like those of the load."""
    answer = tenant.client(tenant.new_key("probe")).chat.completions.with_raw_response.create(
        model="haiku", messages=say("Say: chaos-1-1000 " + "amber meadow " * 17)
    )
    return Decimal(answer.headers["x-loam-cost-usd"])


def capped_keys(tenant, one: Decimal) -> list[str]:
    """Keys of a tenant on which every kind of cap is in force."""
    budget = {"monthlyUsd": one * COVERED, "dailyUsd": one * COVERED * 2, "perUserMonthlyUsd": one * COVERED / 3}
    # Limits that nobody reaches, so that Redis has its part in every request.
    tenant.put(
        budget={name: str(usd) for name, usd in budget.items()},
        rateLimit={"requestsPerMinute": 10**6, "concurrentRequests": 10**5},
    )
    return [
        tenant.new_key("uncapped"),
        tenant.new_key("capped", monthlyUsd=str(one * COVERED / 5)),
        tenant.new_key("ann", user="ann"),
        tenant.new_key("ben", user="ben"),
    ]


async def break_everything(bed, load: Load) -> None:
    """Kill what there is, one after the other, while there is still money to be spent."""
    for part, kill in (
        (0.03, bed.restart_valkey),
        (0.10, lambda: bed.restart_replica(1)),
        (0.20, bed.restart_postgres),
        (0.30, bed.restart_valkey),
        (0.40, lambda: bed.restart_replica(2)),
    ):
        await load.admitted(round(COVERED * part))
        await kill()


async def until_nothing_is_held(database, tenant, deadline_seconds: float) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    while await database.fetchval(_HELD, tenant.name):
        assert time.monotonic() - began < deadline_seconds, "something stays held"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def price_of(bill: dict[str, int] | None) -> int:
    """What the provider bills for a request, in nano-dollars."""
    return 0 if bill is None else bill["inputTokens"] * INPUT_NANOS + bill["outputTokens"] * OUTPUT_NANOS


def wrong_about(told: Told, entries, bill) -> str:
    """What the ledger has wrong about a request, in a word; nothing when it is right."""
    cost = sum(entry["cost"] for entry in entries)
    match told.end:
        case End.ANSWERED:
            [entry] = [entry for entry in entries if entry["outcome"] != "released"]
            tokens = (entry["input_tokens"], entry["output_tokens"])
            exact = (entry["outcome"], entry["estimated"], entry["cost"]) == ("complete", False, price_of(bill))
            return "" if exact and tokens == (bill["inputTokens"], bill["outputTokens"]) else "not what was billed"
        case End.REFUSED:
            return "" if cost == 0 and bill is None else "refused, yet billed"
        case _:
            if bill is not None and not entries:
                return "billed, yet not in the ledger"
            if not price_of(bill) <= cost <= sum(entry["held"] for entry in entries):
                return "outside of its bounds"
            known = [entry["outcome"] == "complete" for entry in entries if entry["cost"] and not entry["estimated"]]
            return "" if all(known) else "not marked as estimated"


@pytest.mark.timeout(600)
async def test_no_cap_is_exceeded_and_nothing_is_lost_while_everything_is_killed(bed, tenant, database):
    keys = capped_keys(tenant, cost_of_one(tenant))
    # Slow enough that whatever is killed cuts something: a stream takes a third of a second.
    bed.bedrock.play({"operation": "converse-stream", "fault": {"eventDelayMs": 15}}, {"fault": {"delayMs": 300}})
    load, began = Load(bed.replicas, keys, REQUESTS, AT_ONCE), time.monotonic()

    async def look():
        try:
            return await database.fetchrow(_WORST, tenant.name)
        except FAILURES:
            return None

    async with Sampler().watching(look) as sampler:
        await asyncio.gather(load.run(), break_everything(bed, load))
        load_seconds = time.monotonic() - began
        settled_seconds = await until_nothing_is_held(database, tenant, bed.hold_seconds + 2 * REAP_SECONDS)

    assert sampler.samples > 100
    assert sampler.worst_nanos <= 0
    accounts = [dict(row) for row in await database.fetch(_ACCOUNTS, tenant.name)]
    assert [row for row in accounts if row["overrun"] or row["held"] or row["posted"] != row["entries"]] == []
    code, verdict = await bed.verify()
    assert (code, verdict.endswith("it adds up\n")) == (0, True), verdict

    entries, bills = defaultdict(list), bed.billed_by("loam-request")
    for entry in await database.fetch(_ENTRIES, tenant.name):
        entries[entry["root_request_id"]].append(entry)
    wrong = [
        (told, why)
        for told in load.told
        if (why := wrong_about(told, entries[told.request_id], bills.get(told.request_id)))
    ]
    assert wrong == []
    assert [told for told in load.told if told.error in FAULTS_OF_OURS] == []
    assert len(load.told) == REQUESTS
    ends, outcomes = (
        Counter(told.end for told in load.told),
        Counter(e["outcome"] for es in entries.values() for e in es),
    )
    figures = {
        "requests": REQUESTS,
        "answered": ends[End.ANSWERED],
        "refused": ends[End.REFUSED],
        "left_by_callers": ends[End.LEFT],
        "cut_by_kills": ends[End.CUT],
        "entries_complete": outcomes["complete"],
        "entries_cut": outcomes["cut"],
        "entries_expired": outcomes["expired"],
        "samples": sampler.samples,
        "most_nanos_above_a_cap": sampler.worst_nanos,
        "load_seconds": round(load_seconds, 1),
        "seconds_until_nothing_held": round(settled_seconds, 1),
    }
    print("\n" + "\n".join(f"{name:>28} {value:>10,}" for name, value in figures.items()))
    print(load.again, Counter(told.error for told in load.told))
    write("chaos", figures)
    # The load reached what it was meant to reach.
    assert ends[End.ANSWERED] >= COVERED / 3
    assert outcomes["expired"] > 0
