import argparse
import asyncio
import gc
import sys

import uvloop
from pydantic import ValidationError

from loam_gateway.ledger import commands as ledger
from loam_gateway.settings import DatabaseSettings, Settings
from loam_shared import logging


def main() -> int:
    commands = argparse.ArgumentParser(prog="python -m loam_gateway", description="The gateway of Loam.")
    choices = commands.add_subparsers(dest="command")
    choices.add_parser("serve", help="serve the three listeners (the default)")
    choices.add_parser("migrate", help="bring the database's schema up to date")
    ledger.add_to(choices.add_parser("ledger", help="check the ledger, or write it out"))
    arguments = commands.parse_args()
    try:
        return _run(arguments)
    except ValidationError as error:
        print(f"loam-gateway: {_sentence(error)}", file=sys.stderr)  # noqa: T201 - the one sentence for who started it
        return 2


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command or "serve"
    if command == "serve":
        return _serve(Settings())
    database = DatabaseSettings()
    logging.configure(database.log_level, service="gateway")
    if command == "migrate":
        # As below, the other way round: serving needs nothing of Alembic.
        from loam_gateway import migrations  # noqa: PLC0415

        migrations.upgrade(database.database_url)
        return 0
    return asyncio.run(ledger.run(arguments, database.database_url))


def _serve(settings: Settings) -> int:
    # Loading all that serving needs takes most of a second, which the other commands need not wait for. A third more
    # would go to looking for garbage among modules, which stay; they are left out of later looks too.
    gc.disable()
    from loam_gateway.server import serve  # noqa: PLC0415
    from loam_gateway.startup import StartupError  # noqa: PLC0415
    from loam_shared import telemetry  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    logging.configure(settings.log_level, service="gateway")
    telemetry.configure("gateway")
    try:
        return uvloop.run(serve(settings))
    except StartupError as error:
        print(f"loam-gateway: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 1


def _sentence(error: ValidationError) -> str:
    names = [f"LOAM_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}" for problem in error.errors()]
    return "; ".join(names)


sys.exit(main())
