"""`loam documents`: hand documents to a pipeline, see what became of them, take them out."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from loam_cli.adapters.gateway import Gateway
from loam_cli.connection import DEFAULT_DATA, ApiKey, Connection, Data, Json, Pipeline, Url
from loam_cli.console import err, out, print_json, print_table, working
from loam_cli.errors import CommandError

app = typer.Typer(help="Documents of a pipeline.", no_args_is_help=True)

SUFFIXES = {".txt", ".md", ".markdown", ".html", ".htm", ".pdf", ".docx"}
_AT_ONCE = 4
_POLL_SECONDS = 0.1
_WAIT_SECONDS = 600.0
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
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List the documents of a pipeline and how each of them is."""
    asyncio.run(_list(Connection(url, api_key, data), pipeline, as_json=json))


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


@app.command("sync")
def sync(pipeline: Pipeline = None, url: Url = None, api_key: ApiKey = None, data: Data = DEFAULT_DATA) -> None:
    """Have the pipeline's sources looked at now, instead of when its schedule says."""
    asyncio.run(_sync(Connection(url, api_key, data), pipeline))


async def _add(connection: Connection, paths: Sequence[Path], pipeline: str | None, *, wait: bool) -> None:
    async with connection.open() as gateway:
        name = await connection.pipeline(pipeline)
        ids = await hand_in(gateway, name, dict(named(paths)))
        out.print(f"{len(ids)} documents handed in")
        if wait:
            with working("indexing …"):
                documents = await indexed(gateway, name, ids)
            failed = [document for document in documents if document["status"] == "Failed"]
            for document in failed:
                err.print(f"{document['name']}: {document['error']}", style="yellow", markup=False)
            out.print(f"{len(documents) - len(failed)} documents are searchable")
            if failed:
                raise CommandError(f"{len(failed)} of {len(documents)} documents could not be read")


async def _list(connection: Connection, pipeline: str | None, *, as_json: bool) -> None:
    async with connection.open() as gateway:
        documents = [one async for one in gateway.documents(await connection.pipeline(pipeline))]
    if as_json:
        print_json(documents)
        return
    rows = [
        [one["name"], one["source"], one["status"], str(one.get("chunks", "")), one.get("error", ""), one["documentId"]]
        for one in documents
    ]
    print_table(["NAME", "SOURCE", "STATUS", "CHUNKS", "ERROR", "ID"], rows)


async def _sync(connection: Connection, pipeline: str | None) -> None:
    async with connection.open() as gateway:
        name = await connection.pipeline(pipeline)
        await gateway.sync(name)
        out.print(f"the sources of {name} are being looked at", markup=False)


async def _remove(connection: Connection, wanted: Sequence[str], pipeline: str | None) -> None:
    async with connection.open() as gateway:
        name = await connection.pipeline(pipeline)
        documents = [one async for one in gateway.documents(name)]
        for text in wanted:
            ids = [one["documentId"] for one in documents if text in (one["documentId"], one["name"])]
            if not ids:
                raise CommandError(f"the pipeline {name} has no document {text}")
            for document_id in ids:
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


async def hand_in(gateway: Gateway, pipeline: str, documents: dict[str, Path]) -> set[str]:
    """Upload all, a few at once; their ids."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str, path: Path) -> str:
        async with slots:
            answer = await gateway.upload(pipeline, name, await asyncio.to_thread(path.read_bytes))
            return str(answer["documentId"])

    return set(await asyncio.gather(*(one(name, path) for name, path in documents.items())))


async def indexed(
    gateway: Gateway, pipeline: str, ids: set[str], progress: Callable[[int], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Wait until none of these documents is under way any more; `progress` is told how many are not.

    Raises CommandError when that takes too long.
    """
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                mine = [one async for one in gateway.documents(pipeline) if one["documentId"] in ids]
                under_way = sum(one["status"] in _UNDER_WAY for one in mine)
                progress(len(mine) - under_way)
                if not under_way:
                    return mine
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise CommandError(f"the documents are not indexed after {_WAIT_SECONDS:g} s; see `loam doctor`") from None
