"""The `loam` command."""

import sys

import typer

from loam_cli.commands import (
    ask,
    demo,
    doctor,
    documents,
    evaluation,
    keys,
    ledger,
    manifests,
    operator,
    pipeline,
    sync,
    up,
    usage,
)
from loam_cli.console import err
from loam_cli.errors import CommandError

app = typer.Typer(
    help="Isolated, budgeted, observable places for tenants to run RAG and agents on Amazon Bedrock.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    up.up,
    demo.demo,
    ask.ask,
    sync.sync,
    usage.usage,
    manifests.apply,
    manifests.delete,
    manifests.render,
    doctor.doctor,
):
    app.command()(command)
app.command("eval")(evaluation.evaluate)
for name, family in (
    ("documents", documents),
    ("pipeline", pipeline),
    ("keys", keys),
    ("ledger", ledger),
    ("operator", operator),
):
    app.add_typer(family.app, name=name)


def main() -> None:
    """Run the command; what goes wrong ends in one sentence and an exit code."""
    try:
        app()
    except CommandError as error:
        err.print(f"loam: {error}", style="red", markup=False)
        sys.exit(error.exit_code)
