"""What `python -m loam_gateway ledger …` does: verify, export and audit."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from loam_gateway.adapters import postgres
from loam_gateway.adapters.postgres import Pool
from loam_gateway.ledger import verify
from loam_gateway.ledger.export import Format, Span, export_acts, export_entries
from loam_shared.errors import InvalidRequestError

_FAILED = 2
_FAILURES: tuple[type[Exception], ...] = (InvalidRequestError, *postgres.FAILURES)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Teach `parser` the commands."""
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("verify", help="recompute every account from its entries and holds, and name the differences")
    export = actions.add_parser("export", help="write entries to a file")
    export.add_argument("--format", type=Format, choices=list(Format), default=Format.CSV)
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    audit = actions.add_parser("audit", help="print who changed what, one JSON object in each line")
    for each in (export, audit):
        each.add_argument("--from", dest="start", type=_moment, required=True, metavar="TIME")
        each.add_argument("--to", dest="end", type=_moment, metavar="TIME", help="not included; now when not given")
        each.add_argument("--tenant")


def _moment(text: str) -> datetime:
    """A date or a date and time; UTC when it does not say. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def run(arguments: argparse.Namespace, database_url: str) -> int:
    """Do what `arguments` say. The exit code is 0, 1 when the ledger does not add up, and 2 when it cannot be done."""
    try:
        pool = await postgres.connect(database_url, 1)
    except postgres.FAILURES as error:
        sys.stderr.write(f"the ledger cannot be read: PostgreSQL does not answer ({error})\n")
        return _FAILED
    async with pool:
        return await verify.report(pool) if arguments.action == "verify" else await _write(pool, arguments)


async def _write(pool: Pool, arguments: argparse.Namespace) -> int:
    span = Span(arguments.start, arguments.end or datetime.now(UTC), arguments.tenant)
    try:
        if arguments.action == "audit":
            await export_acts(pool, span, sys.stdout.buffer)
        else:
            count = await export_entries(pool, span, arguments.output, arguments.format)
            sys.stderr.write(f"ledger: {count} entries\n")
    except _FAILURES as error:
        sys.stderr.write(f"the ledger cannot be written out: {error}\n")
        return _FAILED
    return 0
