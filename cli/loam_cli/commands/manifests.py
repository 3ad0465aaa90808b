"""`loam render`, `loam apply`, `loam delete`: manifests, and what becomes of them."""

import asyncio

import yaml

from loam_cli.commands.up import Files
from loam_cli.connection import DEFAULT_DATA, Connection, Data
from loam_cli.console import out
from loam_cli.local.manifests import read_manifests
from loam_cli.local.rendering import rendered


def render(filename: Files) -> None:
    """Print the objects that the operator makes of manifests; Secrets and what only a cluster knows are left out."""
    objects = asyncio.run(rendered(read_manifests(filename)))
    out.file.write(yaml.safe_dump_all(objects, sort_keys=False))


def apply(filename: Files, data: Data = DEFAULT_DATA) -> None:
    """Apply manifests to the local platform that runs: all of them, or none if any is bad."""
    _print(asyncio.run(Connection(None, None, data).local().apply(read_manifests(filename))))


def delete(filename: Files, data: Data = DEFAULT_DATA) -> None:
    """Delete the objects of manifests from the local platform that runs."""
    _print(asyncio.run(Connection(None, None, data).local().delete(read_manifests(filename))))


def _print(lines: list[str]) -> None:
    for line in lines:
        out.print(line, markup=False)
