"""`loam pipeline`: how pipelines are, which versions of their indexes are kept, and going back to one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from loam_cli.adapters.gateway import Gateway
from loam_cli.connection import DEFAULT_DATA, ApiKey, Connection, Data, Json, Pipeline, PipelineName, Url
from loam_cli.console import out, print_json, print_table
from loam_cli.errors import CommandError

app = typer.Typer(help="Pipelines: how they are, and the versions of their indexes.", no_args_is_help=True)
# Versions of these states have answered before, or could.
_ABLE = {"Ready", "Serving"}


@app.command("list")
def listing(url: Url = None, api_key: ApiKey = None, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the tenant's pipelines and how each of them is."""
    pipelines = _call(Connection(url, api_key, data), Gateway.pipelines)
    if json:
        print_json(pipelines)
        return
    columns = ["NAME", "DOCUMENTS", "PENDING", "FAILED", "CHUNKS", "VERSION", "LAST SYNC", "SYNC"]
    print_table(columns, [_row(one) for one in pipelines])


@app.command()
def show(
    pipeline: PipelineName = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Show a pipeline: its documents by status, its last sync, its index versions, and why documents failed."""
    connection = Connection(url, api_key, data)

    async def ask(gateway: Gateway) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        name = await connection.pipeline(pipeline, "its name")
        return await gateway.pipeline(name), await gateway.versions(name)

    shown, kept = _call(connection, ask)
    if json:
        print_json(shown | {"versions": kept})
        return
    for title, text in _facts(shown).items():
        out.print(f"{title:<11} {text}", markup=False)
    out.print()
    _print_versions(kept)
    _print_failures(shown)


@app.command()
def versions(
    pipeline: PipelineName = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List the index versions that are kept, newest first."""
    connection = Connection(url, api_key, data)

    async def ask(gateway: Gateway) -> list[dict[str, Any]]:
        return await gateway.versions(await connection.pipeline(pipeline, "its name"))

    kept = _call(connection, ask)
    if json:
        print_json(kept)
    else:
        _print_versions(kept)


@app.command()
def rollback(
    version: Annotated[int | None, typer.Argument(help="Index version; the one before if not given.")] = None,
    pipeline: Pipeline = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Answer from another index version."""
    connection = Connection(url, api_key, data)

    async def ask(gateway: Gateway) -> tuple[str, dict[str, Any]]:
        name = await connection.pipeline(pipeline)
        wanted = version if version is not None else _the_one_before(name, await gateway.versions(name))
        return name, await gateway.rollback(name, wanted)

    name, chosen = _call(connection, ask)
    if json:
        print_json(chosen)
    elif chosen["current"]:
        out.print(f"{name} answers from index version {chosen['version']}, {chosen['chunks']} chunks", markup=False)
    else:
        out.print(
            f"{name} will answer from index version {chosen['version']} once that holds what has changed since; "
            "`loam pipeline show` says how far it is",
            markup=False,
        )


def _call(connection: Connection, ask: Callable[[Gateway], Awaitable[Any]]) -> Any:
    async def call() -> Any:
        async with connection.open() as gateway:
            return await ask(gateway)

    return asyncio.run(call())


def _the_one_before(pipeline: str, kept: Sequence[dict[str, Any]]) -> int:
    """The newest version that is older than the current one and able to serve. Raises CommandError."""
    current = next((one["version"] for one in kept if one["current"]), 0)
    older = [one["version"] for one in kept if one["version"] < current and _state(one) in _ABLE]
    if not older:
        raise CommandError(f"{pipeline} keeps no index version from before {current}; see `loam pipeline versions`")
    return int(max(older))


def _row(one: dict[str, Any]) -> list[str]:
    figures = [str(one[field]) for field in ("documents", "pending", "failed", "chunks", "indexVersion")]
    return [one["name"], *figures, _moment(one.get("lastSyncTime")), _sync(one)]


def _sync(one: dict[str, Any]) -> str:
    """What the sources' last or present look came to."""
    under_way = {"Waiting": "waits for the worker", "Running": "is under way"}.get(one.get("sync", ""), "")
    failed = f"failed: {one['syncError']}" if one.get("syncError") else ""
    return ", ".join(filter(None, (under_way, failed))) or "-"


def _facts(shown: dict[str, Any]) -> dict[str, str]:
    by_status = ", ".join(f"{count} {status}" for status, count in shown["byStatus"].items())
    return {
        "pipeline": shown["name"],
        "documents": by_status or "none",
        "chunks": str(shown["chunks"]),
        "index": f"version {shown['indexVersion']}" if shown["indexVersion"] else "none yet",
        "last sync": _moment(shown.get("lastSyncTime")),
        "sync": _sync(shown),
    } | _build(shown)


def _build(shown: dict[str, Any]) -> dict[str, str]:
    """The index version that is being built, or why the newest one was not put into service."""
    if building := shown.get("building"):
        done = f"{building['done']} of {building['documents']} documents"
        return {"building": f"version {building['indexVersion']}, {done}"}
    return {"rejected": shown["rejected"]} if shown.get("rejected") else {}


def _print_versions(kept: Sequence[dict[str, Any]]) -> None:
    columns = ["VERSION", "STATE", "CHUNKS", "CHUNKING", "EMBEDDING", "MADE"]
    print_table(columns, [_version_row(one) for one in kept])
    for one in kept:
        if reason := one.get("reason"):
            out.print(f"version {one['version']}: {reason}", markup=False)


def _version_row(one: dict[str, Any]) -> list[str]:
    recipe = one.get("recipe") or {}
    chunking, embedding = recipe.get("chunking"), recipe.get("embedding")
    return [
        str(one["version"]),
        _state(one) + _progress(one),
        str(one["chunks"]),
        f"{chunking['strategy']} {chunking['maxTokens']}/{chunking['overlapTokens']}" if chunking else "-",
        f"{embedding['model']} {embedding['dimensions']}" if embedding else "-",
        _moment(one["createdAt"]),
    ]


def _state(one: dict[str, Any]) -> str:
    return str(one.get("state") or ("Serving" if one["current"] else "Ready"))


def _progress(one: dict[str, Any]) -> str:
    """How far a version is that is being built."""
    progress = one.get("progress")
    return f" {progress['done']}/{progress['documents']}" if progress and _state(one) == "Building" else ""


def _print_failures(shown: dict[str, Any]) -> None:
    if not shown["failures"]:
        return
    out.print()
    print_table(["FAILED", "REASON"], [[one["name"], one["error"]] for one in shown["failures"]])
    if (more := shown["failed"] - len(shown["failures"])) > 0:
        out.print(f"and {more} more; see `loam documents list --status Failed`", markup=False)


def _moment(text: str | None) -> str:
    """A time of the API's, to the second and in UTC, as everything else says times."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC" if text else "-"
