"""`loam up`: start the local platform, say how to use it, stay until told to stop."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from loam_cli.adapters.control import api_keys, of_kind
from loam_cli.connection import DEFAULT_DATA
from loam_cli.console import out
from loam_cli.errors import CommandError
from loam_cli.local.buckets import copy_command, source_buckets
from loam_cli.local.data import DataFolder
from loam_cli.local.manifests import read_manifests
from loam_cli.local.platform import LocalPlatform, Options, ready_condition, running
from loam_cli.local.report import Report
from loam_operator.cluster import Manifest

Files = Annotated[list[Path], typer.Option("--filename", "-f", help="Manifest file or folder; may be given again.")]
KnownFiles = Annotated[
    list[Path] | None,
    typer.Option("--filename", "-f", help="Manifest file or folder; may be given again, or left out from then on."),
]
Data = Annotated[Path, typer.Option("--data", envvar="LOAM_DATA", help="Folder that keeps everything between runs.")]
Port = Annotated[
    int | None, typer.Option("--port", min=1, max=65535, help="Port of the public API; any free one if not given.")
]
Bedrock = Annotated[
    Literal["local", "aws"],
    typer.Option("--bedrock", help="Call the local stand-in, or AWS with AWS_BEARER_TOKEN_BEDROCK."),
]
Once = Annotated[bool, typer.Option("--once", help="Stop again as soon as everything is ready; fail if it is not.")]


def up(
    filename: KnownFiles = None,
    data: Data = DEFAULT_DATA,
    port: Port = None,
    bedrock: Bedrock = "local",
    once: Once = False,
) -> None:
    """Run the whole platform on this machine: no cluster, container engine or AWS account is needed.

    Every Deployment that the operator makes of the manifests runs as a local process. Ctrl-C stops everything; data
    and objects stay in the data folder, so the manifests need be given once, and again when they have changed.
    """
    if not filename and not DataFolder(data).objects.exists():
        raise CommandError(f"there is nothing in {data} yet; name manifests with -f, such as -f samples/acme/")
    options = Options(read_manifests(filename or []), data, port, bedrock)
    asyncio.run(_up(options, once=once))


async def _up(options: Options, *, once: bool) -> None:
    report = Report(out)
    async with until_stopped(), running(options, report) as platform:
        unready = await settled(platform, report)
        describe(platform, report)
        if once and unready:
            raise CommandError(f"{len(unready)} objects are not ready")
        if not once:
            report.line("[dim]Ctrl-C stops everything; data stays.[/]")
            await asyncio.Event().wait()


async def settled(platform: LocalPlatform, report: Report) -> list[Manifest]:
    """Wait for the operator to have made everything ready, and say what it could not."""
    with report.step("tenants, keys and pipelines"):
        unready = await platform.settled()
    # What is said while everything is still coming up is no news; from here on it is.
    platform.cluster.on_event = report.event
    for held in unready:
        condition = ready_condition(held)
        name = "/".join(filter(None, (held["metadata"].get("namespace"), held["metadata"]["name"])))
        report.warn(f"{held['kind']} {name} is not ready: {condition.get('message') or 'it was not looked at yet'}")
    return unready


def describe(platform: LocalPlatform, report: Report) -> None:
    """Say where everything is and how to use it."""
    url = platform.addresses.url("public")
    objects = platform.cluster.all()
    report.line(
        f"\n[bold]Loam is up[/] after {report.seconds:.1f} s at [bold]{url}[/], its data in {platform.data.root}"
    )
    for name, key in api_keys(objects).items():
        report.line(f"  API key {name}: {key}")
    for pipeline in of_kind(objects, "RagPipeline"):
        report.line(f"  pipeline {pipeline['metadata']['namespace']}/{pipeline['metadata']['name']}")
    for bucket in source_buckets(platform.cluster):
        report.line(f"  source bucket {bucket}; fill it with")
        report.line(f"    {copy_command(platform.data.aws_config, bucket)}")


@contextlib.asynccontextmanager
async def until_stopped() -> AsyncIterator[None]:
    """Leave the context when we are told to stop (Ctrl-C, SIGTERM, a closed terminal), as if it had ended by itself."""
    task = asyncio.current_task()
    assert task is not None
    told = False

    def stop() -> None:
        nonlocal told
        if not told:
            told = True
            out.print("stopping …")
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        yield
    except asyncio.CancelledError:
        if not told:
            raise
