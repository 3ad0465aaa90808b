"""`loam ledger`: whether every account still is the sum of its entries and open holds, and the ledger as files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from loam_cli.connection import DEFAULT_DATA, Connection, Data
from loam_cli.errors import CommandError

app = typer.Typer(help="The ledger.", no_args_is_help=True)


DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", envvar="LOAM_DATABASE_URL", help="PostgreSQL of the ledger.")
]
Start = Annotated[str, typer.Option("--from", help="First day or moment, in UTC.", metavar="TIME")]
End = Annotated[str | None, typer.Option("--to", help="Day or moment that is not included; now by default.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Only of this tenant.")]


@app.command()
def verify(database_url: DatabaseUrl = None, data: Data = DEFAULT_DATA) -> None:
    """Recompute every account from its entries and holds, and name what does not add up."""
    _run(database_url, data, "verify", failure="the ledger does not add up")


@app.command()
def export(
    start: Start,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    end: End = None,
    tenant: Tenant = None,
    format_: Annotated[Literal["csv", "parquet"], typer.Option("--format", help="How to write it.")] = "csv",
    database_url: DatabaseUrl = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Write entries to a file: every metered request, what it used, and what it cost at which price."""
    wanted = (*_span(start, end, tenant), "--format", format_, "--output", str(output))
    _run(database_url, data, "export", *wanted, failure="nothing was exported")


@app.command()
def audit(
    start: Start,
    end: End = None,
    tenant: Tenant = None,
    database_url: DatabaseUrl = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Print who changed what, one JSON object in each line."""
    _run(database_url, data, "audit", *_span(start, end, tenant), failure="the audit log was not read")


def _span(start: str, end: str | None, tenant: str | None) -> tuple[str, ...]:
    given = {"--to": end, "--tenant": tenant}
    return ("--from", start, *(word for name, value in given.items() if value is not None for word in (name, value)))


def _run(database_url: str | None, data: Path, *command: str, failure: str) -> None:
    url = database_url or Connection(None, None, data).local().database_url
    whole = (sys.executable, "-m", "loam_gateway", "ledger", *command)
    done = subprocess.run(whole, env={**os.environ, "LOAM_DATABASE_URL": url}, check=False)  # noqa: S603 - our own
    if done.returncode != 0:
        raise CommandError(failure, exit_code=done.returncode)
