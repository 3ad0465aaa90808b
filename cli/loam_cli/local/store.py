"""Kubernetes objects in one SQLite file: each write is durable when it returns, whatever happens next."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from loam_operator.cluster import Manifest, Ref

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    api_version TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    object TEXT NOT NULL, applied TEXT NOT NULL,
    PRIMARY KEY (api_version, kind, namespace, name)
)
"""
_WHERE = "WHERE api_version = ? AND kind = ? AND namespace = ? AND name = ?"


class Store:
    """Objects with, per field manager, what it applied last."""

    def __init__(self, file: Path | None = None) -> None:
        """Without a `file`, nothing outlives the process."""
        if file is not None:
            file.touch(mode=0o600)
        self._database = sqlite3.connect(file or ":memory:", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(_SCHEMA)

    def load(self) -> Iterator[tuple[Manifest, dict[str, Manifest]]]:
        """Every object, with what was applied."""
        for object_, applied in self._database.execute("SELECT object, applied FROM objects ORDER BY rowid"):
            yield json.loads(object_), json.loads(applied)

    def put(self, manifest: Manifest, applied: dict[str, Manifest]) -> None:
        """Keep an object."""
        row = (*_key(Ref.of(manifest)), json.dumps(manifest), json.dumps(applied))
        self._database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", row)

    def remove(self, ref: Ref) -> None:
        """Forget an object."""
        self._database.execute(f"DELETE FROM objects {_WHERE}", _key(ref))  # noqa: S608 - a constant of this module

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _key(ref: Ref) -> tuple[str, str, str, str]:
    return ref.api_version, ref.kind, ref.namespace or "", ref.name
