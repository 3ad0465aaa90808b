"""A plain HTTP client of the API server, so that its answers are seen as they are."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from loam_operator.api.base import API_VERSION
from loam_operator.api.v1alpha1 import KINDS

from ...contract.crds.manifests import Manifest
from ..controlplane.harness import ControlPlane


class Api:
    """Speaks to the API server as an administrator. An answer is the status code and the body."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._made: list[Manifest] = []

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> tuple[int, Any]:
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        async with self._session.post(self._folder(manifest), json=manifest, params=query) as answer:
            if answer.status == 201 and not dry_run:
                self._made.append(manifest)
            return answer.status, await answer.json()

    async def patch(self, manifest: Manifest, patch: Manifest, subresource: str = "") -> tuple[int, Any]:
        headers = {"Content-Type": "application/merge-patch+json"}
        url = f"{self._object(manifest)}{subresource}"
        async with self._session.patch(url, json=patch, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, manifest: Manifest, subresource: str = "") -> tuple[int, Any]:
        async with self._session.get(f"{self._object(manifest)}{subresource}") as answer:
            return answer.status, await answer.json()

    async def read(self, path: str, accept: str = "application/json") -> Any:
        async with self._session.get(f"{self._url}{path}", headers={"Accept": accept}) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def ensure_namespace(self, name: str) -> None:
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        async with self._session.post(self._folder(manifest), json=manifest) as answer:
            assert answer.status in (201, 409)

    async def clean(self) -> None:
        """Delete what was created, so that an operator that starts later finds nothing of it."""
        while self._made:
            async with self._session.delete(self._object(self._made.pop())) as answer:
                assert answer.status in (200, 202, 404)

    def _folder(self, manifest: Manifest) -> str:
        if manifest["apiVersion"] == "v1":
            group, plural = "api/v1", f"{manifest['kind'].lower()}s"
        else:
            group, plural = f"apis/{API_VERSION}", KINDS[manifest["kind"]].definition.plural
        namespace = manifest["metadata"].get("namespace")
        return f"{self._url}/{group}/" + (f"namespaces/{namespace}/" if namespace else "") + plural

    def _object(self, manifest: Manifest) -> str:
        return f"{self._folder(manifest)}/{manifest['metadata']['name']}"


@pytest.fixture(scope="module")
async def api(control_plane: ControlPlane) -> AsyncIterator[Api]:
    """The API server, with the namespace that the manifests of tests/contract/crds name."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=control_plane.tls())) as session:
        api = Api(control_plane.url, session)
        # It stays: a namespace takes seconds to go, and the tests after these want one of the same name.
        await api.ensure_namespace("acme")
        yield api
        await api.clean()
