"""`loam documents`: hand documents to a pipeline, see what became of them, take them out."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from loam_cli.adapters.gateway import Gateway
from loam_cli.connection import DEFAULT_DATA, ApiKey, Connection, Data, Json, Pipeline, Url
from loam_cli.console import err, out, print_json, print_table, working
from loam_cli.errors import CommandError
from loam_cli.patience import Patience

app = typer.Typer(help="Documents of a pipeline.", no_args_is_help=True)

SUFFIXES = {
    *(".txt", ".md", ".markdown", ".html", ".htm", ".pdf", ".docx"),
    *(".csv", ".tsv", ".json", ".jsonl", ".ndjson"),
}
_AT_ONCE = 4
# Each look lists all documents, so the more there are, the longer the pause.
_POLL_SECONDS, _POLL_SECONDS_PER_DOCUMENT = 0.1, 0.0005
_PATIENCE_SECONDS = 600.0
_UNDER_WAY = {"Pending", "Processing"}


@app.command("add")
def add(
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders whose documents are all taken.")],
    pipeline: Pipeline = None,
    wait: Annotated[bool, typer.Option(help="Wait until they are searchable.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Hand in documents. One of the same name is replaced."""
    asyncio.run(_add(Connection(url, api_key, data), paths, pipeline, wait=wait))


@app.command("list")
def listing(
    pipeline: Pipeline = None,
    status: Annotated[str | None, typer.Option("--status", help="Only those of this status, such as Failed.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List the documents of a pipeline and how each of them is."""
    asyncio.run(_list(Connection(url, api_key, data), pipeline, status, as_json=json))


@app.command("rm")
def remove(
    documents: Annotated[list[str], typer.Argument(help="Names or ids of documents.")],
    pipeline: Pipeline = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Take documents out of the index, and delete them."""
    asyncio.run(_remove(Connection(url, api_key, data), documents, pipeline))


@app.command("retry")
def retry(
    documents: Annotated[
        list[str] | None, typer.Argument(help="Names or ids of documents; all that failed if none is given.")
    ] = None,
    pipeline: Pipeline = None,
    wait: Annotated[bool, typer.Option(help="Wait until they are searchable.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Have documents that failed read anew, such as after an outage or with a newer version of Loam."""
    asyncio.run(_retry(Connection(url, api_key, data), documents or [], pipeline, wait=wait))


async def _add(connection: Connection, paths: Sequence[Path], pipeline: str | None, *, wait: bool) -> None:
    async with connection.open() as gateway:
        name = await connection.pipeline(pipeline)
        found = dict(named(paths))
        with working("handing in …") as say:
            ids = await hand_in(gateway, name, found, lambda done: say(f"{done} of {len(found)} handed in …"))
        out.print(f"{len(ids)} documents handed in")
        if wait:
            await _until_searchable(gateway, name, ids)


async def _until_searchable(gateway: Gateway, pipeline: str, ids: set[str]) -> None:
    """Wait for these documents, and say which could not be read. Raises CommandError when there are any."""
    with working("indexing …") as say:
        documents = await indexed(gateway, pipeline, ids, lambda done: say(f"{done} of {len(ids)} indexed …"))
    failed = [document for document in documents if document["status"] == "Failed"]
    say_what_failed(failed)
    out.print(f"{len(documents) - len(failed)} documents are searchable")
    if failed:
        raise CommandError(f"{len(failed)} of {len(documents)} documents could not be read")


def say_what_failed(documents: Sequence[dict[str, Any]]) -> None:
    """A line for each, with the reason."""
    for document in documents:
        err.print(f"{document['name']}: {document['error']}", style="yellow", markup=False)


async def _list(connection: Connection, pipeline: str | None, status: str | None, *, as_json: bool) -> None:
    async with connection.open() as gateway:
        every = gateway.documents(await connection.pipeline(pipeline))
        with working("listing …"):
            documents = [one async for one in every if status in {None, one["status"]}]
    if as_json:
        print_json(documents)
        return
    rows = [
        [one["name"], one["source"], one["status"], str(one.get("chunks", "")), one.get("error", ""), one["documentId"]]
        for one in documents
    ]
    print_table(["NAME", "SOURCE", "STATUS", "CHUNKS", "ERROR", "ID"], rows)


async def _retry(connection: Connection, wanted: Sequence[str], pipeline: str | None, *, wait: bool) -> None:
    async with connection.open() as gateway:
        name = await connection.pipeline(pipeline)
        documents = [one async for one in gateway.documents(name)]
        failed = {one["documentId"] for one in documents if one["status"] == "Failed"}
        ids = {key for text in wanted for key in _ids(documents, text, name)} if wanted else failed
        for document_id in ids:
            await gateway.retry_document(name, document_id)
        out.print(f"{len(ids)} documents are tried again")
        if wait and ids:
            await _until_searchable(gateway, name, ids)


def _ids(documents: Sequence[dict[str, Any]], text: str, pipeline: str) -> list[str]:
    """The documents that are meant by a name or an id. Raises CommandError when there are none."""
    ids = [one["documentId"] for one in documents if text in (one["documentId"], one["name"])]
    if not ids:
        raise CommandError(f"the pipeline {pipeline} has no document {text}")
    return ids


async def _remove(connection: Connection, wanted: Sequence[str], pipeline: str | None) -> None:
    async with connection.open() as gateway:
        name = await connection.pipeline(pipeline)
        documents = [one async for one in gateway.documents(name)]
        for text in wanted:
            for document_id in _ids(documents, text, name):
                await gateway.remove_document(name, document_id)
            out.print(f"{text} is being removed")


def named(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Each document with the name it gets: its path as given, or below the given folder.

    Raises CommandError when a path does not exist or a folder holds nothing that can be read.
    """
    for path in paths:
        if not path.exists():
            raise CommandError(f"{path} does not exist")
        if path.is_file():
            yield path.name, path
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise CommandError(f"{path} holds no documents (files that end in {', '.join(sorted(SUFFIXES))})")
        yield from ((str(file.relative_to(path)), file) for file in found)


async def hand_in(
    gateway: Gateway, pipeline: str, documents: dict[str, Path], progress: Callable[[int], None] = lambda _: None
) -> set[str]:
    """Upload all, a few at once; their ids. `progress` is told how many have arrived."""
    slots, arrived = asyncio.Semaphore(_AT_ONCE), itertools.count(1)

    async def one(name: str, path: Path) -> str:
        async with slots:
            answer = await gateway.upload(pipeline, name, await asyncio.to_thread(path.read_bytes))
            progress(next(arrived))
            return str(answer["documentId"])

    return set(await asyncio.gather(*(one(name, path) for name, path in documents.items())))


async def indexed(
    gateway: Gateway, pipeline: str, ids: set[str], progress: Callable[[int], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Wait until none of these documents is under way any more; `progress` is told how many are not.

    Raises CommandError when nothing moves for too long.
    """
    pause = max(_POLL_SECONDS, len(ids) * _POLL_SECONDS_PER_DOCUMENT)
    patience = Patience(_PATIENCE_SECONDS)
    while True:
        mine = [one async for one in gateway.documents(pipeline) if one["documentId"] in ids]
        under_way = sum(one["status"] in _UNDER_WAY for one in mine)
        progress(len(mine) - under_way)
        if not under_way:
            return mine
        patience.look(under_way)
        await asyncio.sleep(pause)
