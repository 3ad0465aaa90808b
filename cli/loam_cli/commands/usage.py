"""`loam usage`: what was used and what it cost, and what the budgets still hold."""

import asyncio
from typing import Annotated, Any

import typer

from loam_cli.answers import cap_in_words
from loam_cli.connection import DEFAULT_DATA, ApiKey, Connection, Data, Json, Url
from loam_cli.console import out, print_json, print_table

_FIGURES = {"REQUESTS": "requests", "INPUT": "inputTokens", "OUTPUT": "outputTokens", "COST USD": "costUsd"}


def usage(
    by: Annotated[str, typer.Option("--by", help="Comma-separated: model, user, key, day, pipeline.")] = "model",
    since: Annotated[str | None, typer.Option("--from", help="First day, such as 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Day before which to stop.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Sums from the ledger, this month unless said otherwise, and every cap that holds for the key."""
    given = {"groupBy": by, "from": since, "to": until}
    query = {name: value for name, value in given.items() if value is not None}
    asyncio.run(_usage(Connection(url, api_key, data), query, as_json=json))


async def _usage(connection: Connection, query: dict[str, str], *, as_json: bool) -> None:
    async with connection.open() as gateway:
        sums, budget = await gateway.usage(query), await gateway.budget()
    if as_json:
        print_json({"usage": sums, "budget": budget})
        return
    print_table(
        [*(name.upper() for name in sums["groupBy"]), *_FIGURES], [_row(sums["groupBy"], r) for r in sums["rows"]]
    )
    for cap in budget["caps"]:
        if cap["capUsd"] is not None:
            out.print(cap_in_words(cap), markup=False)


def _row(dimensions: list[str], row: dict[str, Any]) -> list[str]:
    return [*(str(row[name] or "-") for name in dimensions), *(str(row[figure]) for figure in _FIGURES.values())]
