"""A local platform that runs, seen from another command: found by its data folder, asked through its control door."""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from loam_cli.errors import CommandError
from loam_cli.local.data import DataFolder
from loam_operator.api.v1alpha1 import API_VERSION
from loam_operator.cluster import Manifest


@dataclass(frozen=True)
class RunningPlatform:
    """Where it listens: `url` is the public API, `control` the door for commands, `token` its key."""

    url: str
    control: str
    token: str = field(repr=False)
    database_url: str = field(repr=False)

    @classmethod
    def find(cls, folder: Path) -> "RunningPlatform | None":
        """The platform that runs on this data folder, if one does."""
        try:
            known = json.loads(DataFolder(folder).running.read_bytes())
            return cls(**known) if _is_running(known.pop("pid")) else None
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            # No file, or one that a disk which failed has left: `loam up` writes it whole.
            return None

    async def objects(self) -> list[Manifest]:
        """Every object of its cluster."""
        answer: list[Manifest] = await self._call("GET", "/objects")
        return answer

    async def events(self) -> list[dict[str, str]]:
        """What the operator lately had to say."""
        answer: list[dict[str, str]] = await self._call("GET", "/events")
        return answer

    async def programs(self) -> list[dict[str, Any]]:
        """Every process with its name, state, restarts and, if it crashed, last words."""
        answer: list[dict[str, Any]] = await self._call("GET", "/programs")
        return answer

    async def apply(self, manifests: Sequence[Manifest]) -> list[str]:
        """Apply all or none of the manifests; what became of each."""
        answer: list[str] = await self._call("POST", "/apply", manifests)
        return answer

    async def delete(self, manifests: Sequence[Manifest]) -> list[str]:
        """Delete the objects of these manifests; those that were there."""
        answer: list[str] = await self._call("POST", "/delete", manifests)
        return answer

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.token}"}
        try:
            async with (
                aiohttp.ClientSession(headers=headers) as http,
                http.request(method, self.control + path, json=body) as response,
            ):
                answer = await response.json()
        except aiohttp.ClientError as error:
            raise CommandError(f"the local platform does not answer: {error}") from error
        if response.status >= 400:
            raise CommandError(answer["error"])
        return answer


def api_keys(objects: Sequence[Manifest]) -> dict[str, str]:
    """The keys of ApiKeys that are ready, by ``namespace/name``."""
    held = {(o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects if o["kind"] == "Secret"}
    found = {}
    for key in of_kind(objects, "ApiKey"):
        namespace, name = key["metadata"]["namespace"], key["metadata"]["name"]
        secret = held.get((namespace, key["spec"].get("secretName") or name))
        if secret is not None and "key" in secret.get("data", {}):
            found[f"{namespace}/{name}"] = base64.b64decode(secret["data"]["key"]).decode()
    return found


def of_kind(objects: Sequence[Manifest], kind: str) -> list[Manifest]:
    """Loam's objects of one kind."""
    return [o for o in objects if (o["apiVersion"], o["kind"]) == (API_VERSION, kind)]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
