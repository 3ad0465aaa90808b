"""`loam keys`: API keys made over the API, within what the calling key may do and spend."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from loam_cli.adapters.gateway import Gateway
from loam_cli.connection import DEFAULT_DATA, ApiKey, Connection, Data, Json, Url
from loam_cli.console import out, print_json, print_table

app = typer.Typer(help="API keys of the tenant; the calling key needs the scope keys:write.", no_args_is_help=True)
KeyId = Annotated[str, typer.Argument(help="Id of the key.")]


@app.command("list")
def listing(url: Url = None, api_key: ApiKey = None, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the tenant's keys."""
    keys = _call(Connection(url, api_key, data), Gateway.keys)["keys"]
    if json:
        print_json(keys)
        return
    rows = [
        [k["keyId"], k["name"], " ".join(k["scopes"]), k["monthlyBudget"] or "-", k["expiresAt"] or "-"] for k in keys
    ]
    print_table(["ID", "NAME", "SCOPES", "MONTHLY USD", "EXPIRES"], rows)


@app.command()
def create(  # noqa: PLR0913, PLR0917 - one for each option
    name: Annotated[str, typer.Argument(help="What people call it.")],
    scope: Annotated[list[str], typer.Option("--scope", help="What it may do; may be given again.")],
    monthly_usd: Annotated[str | None, typer.Option("--monthly-usd", help="Its own cap per month.")] = None,
    daily_usd: Annotated[str | None, typer.Option("--daily-usd", help="Its own cap per day (UTC).")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Who is charged when this key calls.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a key, shown this once."""
    wanted = {"name": name, "scopes": scope, "monthlyBudget": monthly_usd, "dailyBudget": daily_usd, "user": user}
    body = {field: value for field, value in wanted.items() if value is not None}
    _show(_call(Connection(url, api_key, data), lambda gateway: gateway.create_key(body)))


@app.command()
def rotate(
    key_id: KeyId,
    overlap_hours: Annotated[float, typer.Option("--overlap-hours", help="How long the old secret works on.")] = 24,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Give a key a new secret."""
    _show(_call(Connection(url, api_key, data), lambda gateway: gateway.rotate_key(key_id, overlap_hours)))


@app.command()
def revoke(key_id: KeyId, url: Url = None, api_key: ApiKey = None, data: Data = DEFAULT_DATA) -> None:
    """End a key at once."""
    _call(Connection(url, api_key, data), lambda gateway: gateway.revoke_key(key_id))
    out.print(f"{key_id} is revoked", markup=False)


def _call(connection: Connection, ask: Callable[[Gateway], Awaitable[Any]]) -> Any:
    async def call() -> Any:
        async with connection.open() as gateway:
            return await ask(gateway)

    return asyncio.run(call())


def _show(made: dict[str, Any]) -> None:
    out.print(f"{made['keyId']}: {made['apiKey']}", markup=False)
