"""`loam doctor`: what is wrong, in words."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from loam_cli.adapters.control import RunningPlatform
from loam_cli.adapters.gateway import Gateway
from loam_cli.connection import DEFAULT_DATA, Connection, Data, Url
from loam_cli.console import out
from loam_cli.errors import CommandError
from loam_cli.local.platform import NOT_SERVED, is_unready, ready_condition
from loam_operator.api.v1alpha1 import API_VERSION
from loam_operator.cluster import Manifest, Ref


def doctor(url: Url = None, data: Data = DEFAULT_DATA) -> None:
    """Look at the gateway and its dependencies, at every process, and at every object that is not ready."""
    asyncio.run(_doctor(Connection(url, None, data)))


async def _doctor(connection: Connection) -> None:
    local = connection.local() if connection.url is None else None
    problems = [problem async for problem in _of_gateway(local.url if local else str(connection.url))]
    if local is not None:
        problems += [problem async for problem in _of_platform(local)]
    for problem in problems:
        out.print(f"✗ {problem}", style="red", markup=False)
    if problems:
        raise CommandError(f"{len(problems)} things need attention")
    out.print("[green]✓[/] everything is well")


async def _of_gateway(url: str) -> AsyncIterator[str]:
    async with Gateway.open(url, "") as gateway:
        try:
            health = await gateway.health()
        except CommandError as error:
            yield str(error)
            return
    if health["status"] != "ok":
        yield f"the gateway is {health['status']}: {health.get('reason') or _unwell(health)}"


def _unwell(health: dict[str, Any]) -> str:
    dependencies = health.get("dependencies", {})
    return ", ".join(f"{name} is {state}" for name, state in dependencies.items() if state != "ok")


async def _of_platform(platform: RunningPlatform) -> AsyncIterator[str]:
    for program in await platform.programs():
        if program["state"] != "Ready":
            yield f"{program['name']} is {program['state'].lower()}: {program['lastWords'] or 'it is not ready yet'}"
    for held in await platform.objects():
        for problem in _of_object(held):
            yield problem


def _of_object(held: Manifest) -> Iterator[str]:
    condition: Manifest = {}
    if is_unready(held):
        condition = ready_condition(held) or {"message": "the operator has not looked at it yet"}
    elif held["kind"] == "Deployment":
        conditions: list[Manifest] = held.get("status", {}).get("conditions", [])
        condition = next((one for one in conditions if one["status"] == "False"), {})
    elif held["apiVersion"] == API_VERSION:
        condition = next((one for one in held["status"]["conditions"] if _is_bad(one)), {})
    if condition:
        yield f"{Ref.of(held)}: {condition['message']}"


def _is_bad(condition: Manifest) -> bool:
    return bool(condition["status"] == "False" and condition["reason"] != NOT_SERVED)
