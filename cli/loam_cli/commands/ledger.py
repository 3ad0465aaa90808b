"""`loam ledger verify`: whether every account still is the sum of its entries and open holds."""

import os
import subprocess
import sys
from typing import Annotated

import typer

from loam_cli.connection import DEFAULT_DATA, Connection, Data
from loam_cli.errors import CommandError

app = typer.Typer(help="The ledger.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """So that `verify` is a command by its name, also while it is the only one."""


@app.command()
def verify(
    database_url: Annotated[
        str | None, typer.Option("--database-url", envvar="LOAM_DATABASE_URL", help="PostgreSQL of the ledger.")
    ] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Recompute every account from its entries and holds, and name what does not add up."""
    url = database_url or Connection(None, None, data).local().database_url
    command = (sys.executable, "-m", "loam_gateway", "ledger", "verify")
    done = subprocess.run(command, env={**os.environ, "LOAM_DATABASE_URL": url}, check=False)  # noqa: S603 - our own
    if done.returncode != 0:
        raise CommandError("the ledger does not add up", exit_code=done.returncode)
