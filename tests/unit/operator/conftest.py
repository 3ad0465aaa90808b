"""A world in memory: manifests as they would be read from a cluster."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from loam_operator.cluster import Manifest, Ref

SAMPLES = Path(__file__).parents[3] / "samples"


class Cache:
    """The reading half of a cluster."""

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self.objects = {Ref.of(manifest): manifest for manifest in manifests}

    def put(self, manifest: Manifest) -> None:
        self.objects[Ref.of(manifest)] = manifest

    def get(self, ref: Ref) -> Manifest | None:
        return self.objects.get(ref)

    def list(
        self, api_version: str, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        wanted = (labels or {}).items()
        return [
            manifest
            for ref, manifest in self.objects.items()
            if (ref.api_version, ref.kind) == (api_version, kind)
            and namespace in {None, ref.namespace}
            and wanted <= manifest["metadata"].get("labels", {}).items()
        ]


def stored(manifest: Manifest) -> Manifest:
    """The manifest as an API server would give it back."""
    ref = Ref.of(manifest)
    kept: dict[str, Any] = {"uid": f"uid-of-{ref.name}", "generation": 1, "resourceVersion": "1", "finalizers": []}
    return manifest | {"metadata": kept | manifest["metadata"]}


@pytest.fixture
def acme() -> Cache:
    """The sample tenant."""
    documents = [
        document
        for path in sorted((SAMPLES / "acme").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    return Cache([stored(document) for document in documents])


@pytest.fixture
def put(acme: Cache) -> Callable[[Ref, dict], None]:
    """Changes an object: ``put(ref, {"spec": {...}})`` merges one level deep."""

    def change(ref: Ref, patch: dict) -> None:
        live = acme.objects[ref]
        acme.put({**live, **{name: {**live.get(name, {}), **part} for name, part in patch.items()}})

    return change
