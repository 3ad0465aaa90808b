"""The entries of a ConfigMap, mounted as files in a folder of its name.

Its documents have no bucket; their keys are ``{configMap}/{entry}``.
"""

import hashlib
from pathlib import Path
from typing import BinaryIO

from loam_ingestion.errors import SourceError
from loam_ingestion.pipeline import ConfigMapSource
from loam_shared.contracts.internal import SourceDocument


def listing(source: ConfigMapSource, sources_dir: Path | None) -> list[SourceDocument]:
    """Raises SourceError when the ConfigMap is not mounted."""
    folder = _root(sources_dir) / source.name
    if not folder.is_dir():
        raise SourceError(f"the ConfigMap {source.name} is not mounted; does it exist in the tenant's namespace?")
    # Kubernetes keeps the entries in hidden folders (..data) and links to them, so that all change at once.
    entries = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".."))
    return [_seen(f"{source.name}/{entry.name}", entry.read_bytes()) for entry in entries]


def opened(key: str, sources_dir: Path | None) -> BinaryIO:
    """Raises SourceError when the entry is gone."""
    root = _root(sources_dir)
    path = root / key
    if ".." in Path(key).parts or not path.is_file():
        raise SourceError(f"the ConfigMap entry {key} is gone", passing=False)
    return path.open("rb")


def _root(sources_dir: Path | None) -> Path:
    if sources_dir is None:
        raise SourceError("no ConfigMaps are mounted here (LOAM_SOURCES_DIR is not set)")
    return sources_dir


def _seen(key: str, data: bytes) -> SourceDocument:
    return SourceDocument(source="ConfigMap", key=key, etag=hashlib.sha256(data).hexdigest(), size=len(data))
