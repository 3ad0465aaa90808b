"""Kubernetes objects in one SQLite file: each write is durable when it returns, whatever happens next."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from loam_cli.errors import CommandError
from loam_operator.cluster import Manifest, Ref
from loam_shared.errors import UnavailableError

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
        """Without a `file`, nothing outlives the process. Raises CommandError when the file is damaged."""
        try:
            if file is not None:
                file.touch(mode=0o600)
            self._database = sqlite3.connect(file or ":memory:", isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(_SCHEMA)
            if (found := self._database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
        except (OSError, sqlite3.Error) as error:
            raise CommandError(
                f"{file}, which holds this platform's objects and API keys, cannot be read ({error}); "
                "put it back from a backup, or begin anew in another folder with --data"
            ) from error

    def load(self) -> Iterator[tuple[Manifest, dict[str, Manifest]]]:
        """Every object, with what was applied."""
        for object_, applied in self._database.execute("SELECT object, applied FROM objects ORDER BY rowid"):
            yield json.loads(object_), json.loads(applied)

    def put(self, manifest: Manifest, applied: dict[str, Manifest]) -> None:
        """Keep an object. Raises UnavailableError when it cannot be written."""
        row = (*_key(Ref.of(manifest)), json.dumps(manifest), json.dumps(applied))
        self._write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", row)

    def remove(self, ref: Ref) -> None:
        """Forget an object. Raises UnavailableError when that cannot be written."""
        self._write(f"DELETE FROM objects {_WHERE}", _key(ref))  # noqa: S608 - a constant of this module

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _write(self, statement: str, row: tuple[str, ...]) -> None:
        try:
            self._database.execute(statement, row)
        except sqlite3.Error as error:
            raise UnavailableError(f"the platform's objects cannot be written: {error}") from error


def _key(ref: Ref) -> tuple[str, str, str, str]:
    return ref.api_version, ref.kind, ref.namespace or "", ref.name
