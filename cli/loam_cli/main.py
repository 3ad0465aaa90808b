"""The `loam` command."""

import sys

import typer

from loam_cli.commands import ask, documents, up
from loam_cli.console import err
from loam_cli.errors import CommandError

app = typer.Typer(
    help="Isolated, budgeted, observable places for tenants to run RAG and agents on Amazon Bedrock.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(ask.ask)
app.add_typer(documents.app, name="documents")


def main() -> None:
    """Run the command; what goes wrong ends in one sentence and an exit code."""
    try:
        app()
    except CommandError as error:
        err.print(f"loam: {error}", style="red", markup=False)
        sys.exit(error.exit_code)
