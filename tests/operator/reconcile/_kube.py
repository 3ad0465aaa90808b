"""What the tests do to a cluster, as an administrator or as somebody else."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from loam_operator.adapters.api import Api
from loam_operator.api.v1alpha1 import KINDS
from loam_operator.cluster import Ref
from loam_operator.kinds import ALL, MADE, NAMESPACE, PER_NAMESPACE
from loam_shared.errors import ConflictError, NotFoundError

Manifest = dict[str, Any]
OURS_REF = "loam.dev/v1alpha1"


class Kube:
    """Calls of one user. `api` raises the errors of loam_shared for statuses."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def apply(self, *manifests: Manifest, manager: str = "kubectl") -> None:
        """Server-side apply, as kubectl does."""
        for manifest in manifests:
            query = {"fieldManager": manager, "force": "true"}
            path = _path(Ref.of(manifest))
            await self.api.request(
                "PATCH", path, body=manifest, query=query, content_type="application/apply-patch+yaml"
            )

    async def get(self, ref: Ref) -> Manifest | None:
        """The live object, or None."""
        with contextlib.suppress(NotFoundError):
            return await self.api.request("GET", _path(ref))
        return None

    async def edit(self, ref: Ref, patch: Manifest, subresource: str = "") -> None:
        """What `kubectl patch` does."""
        await self.api.request(
            "PATCH",
            _path(ref) + subresource,
            body=patch,
            query={"fieldManager": "somebody"},
            content_type="application/merge-patch+json",
        )

    async def delete(self, ref: Ref) -> None:
        """What `kubectl delete --wait=false` does."""
        with contextlib.suppress(NotFoundError):
            await self.api.request("DELETE", _path(ref))

    async def list(self, kind: str, namespace: str | None = None) -> list[Manifest]:
        """All objects of a kind."""
        found = next(known for (_, name), known in ALL.items() if name == kind)
        answer = await self.api.request("GET", found.path(namespace))
        return [{"apiVersion": found.api_version, "kind": kind} | item for item in answer["items"]]

    async def everything(self, namespace: str, kinds: Iterable[str] = tuple(KINDS)) -> dict[Ref, Manifest]:
        """The namespace, all that the operator made in it, and all objects of our `kinds` anywhere."""
        found: list[Manifest] = []
        for kind in (*MADE, *PER_NAMESPACE):
            labelled = await self.list(kind.kind, namespace)
            found += [m for m in labelled if m["metadata"].get("labels", {}).get("loam.dev/tenant")]
        for kind in kinds:
            found += await self.list(kind)
        live = await self.get(Ref(NAMESPACE.api_version, NAMESPACE.kind, namespace))
        return {Ref.of(manifest): manifest for manifest in [*found, *([live] if live else [])]}

    async def condition(self, ref: Ref, kind: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition; empty while there is none."""
        live = await self.get(ref)
        for condition in (live or {}).get("status", {}).get("conditions", []):
            if condition["type"] == kind and condition["observedGeneration"] == live["metadata"]["generation"]:
                return condition["status"], condition["reason"]
        return "", ""


async def until(condition: Callable[[], Awaitable[Any]], what: str, seconds: float = 20) -> Any:
    """Poll until `condition` gives something true; returns it."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ConflictError):
            if found := await condition():
                return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        await asyncio.sleep(0.05)


def sample(folder: Path) -> list[Manifest]:
    """The manifests of a folder in the order of kubectl."""
    documents: Iterable[Manifest] = (
        document for path in sorted(folder.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
    )
    return [document for document in documents if document]


def ours(kind: str, name: str, namespace: str | None = None) -> Ref:
    """A reference to an object of Loam's."""
    return Ref(OURS_REF, kind, name, namespace)


def _path(ref: Ref) -> str:
    return ALL[ref.api_version, ref.kind].path(ref.namespace, ref.name)
