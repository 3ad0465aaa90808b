"""`loam ask`: a question to a pipeline, answered as it comes, with its sources and what it cost."""

import asyncio
from typing import Annotated

import typer

from loam_cli.answers import answered, print_cost, print_sources
from loam_cli.connection import DEFAULT_DATA, ApiKey, Connection, Data, Json, Pipeline, Url
from loam_cli.console import print_json


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    pipeline: Pipeline = None,
    session: Annotated[str | None, typer.Option("--session", help="Remember the conversation under this name.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Ask a pipeline's documents; see where the answer comes from and what it cost."""
    asyncio.run(_ask(Connection(url, api_key, data), question, pipeline, session, as_json=json))


async def _ask(
    connection: Connection, question: str, pipeline: str | None, session: str | None, *, as_json: bool
) -> None:
    async with connection.open() as gateway:
        name = await connection.pipeline(pipeline)
        answer = await answered(gateway, name, question, session, aloud=not as_json)
        if as_json:
            print_json(answer.to_json())
        else:
            print_sources(answer)
            await print_cost(gateway, answer.usage)
