"""Manifests from files: read, checked as an API server would, all of them before any is applied."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loam_cli.errors import CommandError
from loam_operator.api.v1alpha1 import API_VERSION, KINDS
from loam_operator.cluster import Manifest

_SUFFIXES = {".yaml", ".yml", ".json"}
_CLUSTER_SCOPED = {"Namespace", "ClusterRole", "ClusterRoleBinding"}


def is_cluster_scoped(manifest: Mapping[str, Any]) -> bool:
    """Whether objects of this kind lie in no namespace."""
    if manifest["apiVersion"] == API_VERSION and manifest["kind"] in KINDS:
        return KINDS[manifest["kind"]].definition.scope == "Cluster"
    return manifest["kind"] in _CLUSTER_SCOPED


def read_manifests(paths: Sequence[Path]) -> list[Manifest]:
    """Every object of the files, and of the files in the folders, in the order of their names.

    Raises CommandError when a file cannot be read or holds something that is no object.
    """
    return [manifest for path in paths for file in _files(path) for manifest in _objects(file)]


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise CommandError(f"{path} does not exist")
    if path.is_file():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if not files:
        raise CommandError(f"{path} holds no manifests (files that end in .yaml, .yml or .json)")
    return files


def _objects(file: Path) -> Iterator[Manifest]:
    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise CommandError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from (_checked(item, file) for item in document.get("items", ()))
        elif document is not None:
            yield _checked(document, file)


def _checked(document: Any, file: Path) -> Manifest:
    """The document, when it at least looks like an object; objects of namespaced kinds get the namespace `default`."""
    if not isinstance(document, dict):
        raise CommandError(f"{file} holds something that is no Kubernetes object")
    metadata = document.get("metadata")
    missing = [name for name in ("apiVersion", "kind") if not isinstance(document.get(name), str)]
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        missing.append("metadata.name")
    if missing:
        raise CommandError(f"{file} holds an object without {', '.join(missing)}")
    if is_cluster_scoped(document):
        return document
    return document | {"metadata": {"namespace": "default"} | document["metadata"]}


def without_namespace(manifests: Sequence[Manifest], existing: Collection[str]) -> Iterator[str]:
    """A sentence for every object whose namespace is neither among `existing` nor made by an earlier manifest."""
    known = set(existing)
    for manifest in manifests:
        metadata = manifest["metadata"]
        if manifest["kind"] == "Namespace":
            known.add(metadata["name"])
        elif (namespace := metadata.get("namespace")) is not None and namespace not in known:
            yield (
                f'{manifest["kind"]} "{metadata["name"]}": namespaces "{namespace}" not found; '
                f"put a Namespace {namespace} before it (the Tenant {namespace} adopts one that is labelled "
                f"loam.dev/tenant: {namespace})"
            )
