"""Does the ledger add up? Every account is recomputed from its entries and open holds, every entry from its price."""

import sys
from datetime import timedelta

from loam_gateway.adapters.postgres import Pool
from loam_gateway.ledger.model import Difference

_DIFFERENCES = "SELECT what, expected, found FROM ledger_differences($1) ORDER BY what"
_SIZE = "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM entries), (SELECT count(*) FROM holds)"


async def differences(pool: Pool, clock_offset: timedelta = timedelta()) -> list[Difference]:
    """Everything that does not add up, as of one moment; the traffic may go on meanwhile."""
    return [Difference(**row) for row in await pool.fetch(_DIFFERENCES, clock_offset)]


async def report(pool: Pool) -> int:
    """Say on standard output whether the ledger adds up. Returns 0 if it does, 1 if not."""
    found = await differences(pool)
    size = await pool.fetchrow(_SIZE)
    for difference in found:
        sys.stdout.write(f"{difference.what} is {difference.found}, should be {difference.expected}\n")
    verdict = f"{len(found)} differences" if found else "it adds up"
    sys.stdout.write("ledger: {} accounts, {} entries, {} open holds: {}\n".format(*(size or ()), verdict))
    return 1 if found else 0
