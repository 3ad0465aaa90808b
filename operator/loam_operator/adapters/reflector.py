"""A list that stays true: one list of a kind, then a watch, then a list again when the watch has lost its place."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from loam_operator.adapters.api import Api, Expired
from loam_operator.adapters.store import Store
from loam_operator.cluster import Manifest
from loam_operator.kinds import Kind
from loam_shared.errors import LoamError

log = structlog.get_logger()

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0


@dataclass(frozen=True)
class Scope:
    """Which objects are reflected: those of a kind, in one namespace or all, that a label selector picks."""

    kind: Kind
    namespace: str | None = None
    labels: dict[str, str] | None = None

    @property
    def query(self) -> dict[str, str]:
        """The scope as query parameters."""
        if not self.labels:
            return {}
        return {"labelSelector": ",".join(f"{name}={value}" for name, value in self.labels.items())}


class Reflector:
    """Keeps a scope of the API in the store."""

    def __init__(self, api: Api, store: Store, scope: Scope) -> None:
        self._api, self._store, self._scope = api, store, scope
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Reflect until cancelled; every error is waited out."""
        pause = _FIRST_PAUSE
        version: str | None = None
        while True:
            try:
                version = version or await self.list()
                pause = _FIRST_PAUSE
                version = await self._watch(version)
                await asyncio.sleep(_FIRST_PAUSE)
            except Expired:
                version = None
            except LoamError as error:
                log.debug("waiting to watch again", kind=self._scope.kind.kind, error=error.message, seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def listed(self) -> None:
        """Fill the store once. Waits for a kind that the API server does not serve, or not yet."""
        pause = _FIRST_PAUSE
        while not self.synced.is_set():
            try:
                await self.list()
            except LoamError as error:
                log.warning("waiting for the API server", kind=self._scope.kind.kind, error=error.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def list(self) -> str:
        """Fill the store with a whole list; returns its version."""
        path = self._scope.kind.path(self._scope.namespace)
        answer = await self._api.request("GET", path, query=self._scope.query)
        version: str = answer["metadata"]["resourceVersion"]
        self._store.replace(self._known(), map(self._typed, answer["items"]), int(version))
        self.synced.set()
        return version

    async def _watch(self, version: str) -> str:
        async for event in self._events(version):
            manifest = event["object"]
            version = manifest["metadata"]["resourceVersion"]
            if event["type"] == "DELETED":
                self._store.remove(self._typed(manifest))
            elif event["type"] != "BOOKMARK":
                self._store.put(self._typed(manifest))
        return version

    async def _events(self, version: str) -> AsyncIterator[dict[str, Any]]:
        query = self._scope.query | {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        async for line in self._api.stream(self._scope.kind.path(self._scope.namespace), query=query):
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise Expired(event["object"].get("message", "the watch has lost its place"))
            yield event

    def _known(self) -> Iterable[Manifest]:
        kind = self._scope.kind
        return self._store.list(kind.api_version, kind.kind, self._scope.namespace, self._scope.labels)

    def _typed(self, manifest: Manifest) -> Manifest:
        """Lists leave out what each item is."""
        return {"apiVersion": self._scope.kind.api_version, "kind": self._scope.kind.kind} | manifest
