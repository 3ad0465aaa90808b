"""`loam operator run`: the operator, against the current kubeconfig or from within a cluster."""

import typer

app = typer.Typer(help="The operator.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """So that `run` is a command by its name, also while it is the only one."""


@app.command()
def run() -> None:
    """Run the operator until it is told to stop; its settings come from LOAM_* variables."""
    # Only this command needs kopf and the Kubernetes client, which the base installation leaves out.
    from loam_operator import main  # noqa: PLC0415
    from loam_operator.settings import Settings  # noqa: PLC0415

    main.run(Settings())
