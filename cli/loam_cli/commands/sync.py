"""`loam sync`: have a pipeline's sources looked at now, and see what came of it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from loam_cli.adapters.gateway import Gateway
from loam_cli.commands.documents import say_what_failed
from loam_cli.connection import DEFAULT_DATA, ApiKey, Connection, Data, Json, PipelineName, Url
from loam_cli.console import out, print_json, working
from loam_cli.errors import CommandError
from loam_cli.patience import Patience

_POLL_SECONDS = 0.3
_PATIENCE_SECONDS = 600.0
_Documents = dict[str, dict[str, Any]]


def sync(
    pipeline: PipelineName = None,
    wait: Annotated[bool, typer.Option(help="Wait until the index is what the sources say.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Have a pipeline's sources looked at now, instead of when its schedule says."""
    asyncio.run(_sync(Connection(url, api_key, data), pipeline, wait=wait, as_json=json))


async def _sync(connection: Connection, named: str | None, *, wait: bool, as_json: bool) -> None:
    async with connection.open() as gateway:
        name = await connection.pipeline(named, "its name")
        if not wait:
            await gateway.sync(name)
            _say_it_waits(name, as_json=as_json)
            return
        came = await _awaited(gateway, name)
    if as_json:
        print_json(came.to_json())
    else:
        out.print(came.in_words(), markup=False)
        say_what_failed(came.failed)
    if came.failed:
        raise CommandError(f"{len(came.failed)} documents could not be read")


def _say_it_waits(pipeline: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"pipeline": pipeline, "sync": "Waiting"})
    else:
        out.print(f"{pipeline} will look at its sources", markup=False)


@dataclass(frozen=True)
class _Outcome:
    """What a sync came to: its documents before and after, and how long it took."""

    pipeline: str
    before: _Documents
    after: _Documents
    seconds: float

    @property
    def added(self) -> list[str]:
        return _names(self.after, self.after.keys() - self.before.keys())

    @property
    def removed(self) -> list[str]:
        return _names(self.before, self.before.keys() - self.after.keys())

    @property
    def changed(self) -> list[str]:
        both = self.before.keys() & self.after.keys()
        return _names(self.after, {key for key in both if self._touched(key)})

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Those that were tried and could not be read."""
        return [one for key, one in self.after.items() if one["status"] == "Failed" and self._touched(key)]

    def _touched(self, key: str) -> bool:
        return key not in self.before or self.before[key]["updatedAt"] != self.after[key]["updatedAt"]

    @property
    def unchanged(self) -> int:
        return len(self.after) - len(self.added) - len(self.changed)

    def in_words(self) -> str:
        figures = f"{len(self.added)} added, {len(self.changed)} changed, {len(self.removed)} removed"
        return f"{self.pipeline}: {figures}, {self.unchanged} unchanged, after {self.seconds:.1f} s"

    def to_json(self) -> dict[str, Any]:
        lists = {"added": self.added, "changed": self.changed, "removed": self.removed}
        failed = [{"name": one["name"], "error": one["error"]} for one in self.failed]
        more = {"unchanged": self.unchanged, "failed": failed, "seconds": round(self.seconds, 1)}
        return {"pipeline": self.pipeline} | lists | more


async def _awaited(gateway: Gateway, pipeline: str) -> _Outcome:
    """Ask for a sync and wait for its end. Raises CommandError when the sources could not be looked at."""
    began, before = time.monotonic(), await _documents(gateway, pipeline)
    await gateway.sync(pipeline)
    with working(f"{pipeline} …") as say:
        ended = await at_rest(gateway, pipeline, say)
    if error := ended.get("syncError"):
        raise CommandError(f"the sources of {pipeline} could not be looked at, and nothing was changed: {error}")
    return _Outcome(pipeline, before, await _documents(gateway, pipeline), time.monotonic() - began)


async def at_rest(gateway: Gateway, pipeline: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The pipeline once no sync and no document is under way; meanwhile, say how far it is."""
    most, patience = 0, Patience(_PATIENCE_SECONDS)
    while True:
        state = await gateway.pipeline(pipeline)
        most = max(most, state["pending"])
        if not (state.get("sync") or state["pending"]):
            return state
        say(f"{pipeline}: {_how_far(state, most)} …")
        patience.look((state.get("sync"), state["pending"], state.get("syncError")))
        await asyncio.sleep(_POLL_SECONDS)


def _how_far(state: dict[str, Any], most: int) -> str:
    if state["pending"]:
        return f"{most - state['pending']} of {most} documents"
    if state["sync"] == "Running":
        return "listing the sources"
    if error := state.get("syncError"):
        return f"trying again, since the last look failed: {error}"
    return "waiting for the ingestion worker"


async def _documents(gateway: Gateway, pipeline: str) -> _Documents:
    return {one["documentId"]: one async for one in gateway.documents(pipeline)}


def _names(documents: _Documents, keys: set[str]) -> list[str]:
    return sorted(documents[key]["name"] for key in keys)
