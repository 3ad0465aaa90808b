"""Vectors that were computed before: one file per model in the user's cache folder.

A file is a SQLite database, so that what is written is written whole, an interrupted run goes on where it was, and two
runs at once share what they compute.
"""

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from loam_evaluation.embedders import Embedder, Vectors
from loam_evaluation.progress import Steps

_BATCH = 16
_TEXTS_PER_SELECT = 500


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/loam/vectors``, or the same below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loam" / "vectors"


class VectorCache:
    """Vectors of one model by content hash."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._embedder = embedder
        self._path = folder / f"{re.sub(r'[^a-zA-Z0-9.-]+', '_', embedder.identity)}.sqlite"

    async def passages(self, texts: Sequence[str]) -> Vectors:
        """A row for each text; what is not known yet is computed and kept, some texts at a time."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        by_hash = {hashlib.sha256(text.encode()).digest(): text for text in texts}
        with closing(sqlite3.connect(self._path, timeout=60)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            with database:
                database.execute("CREATE TABLE IF NOT EXISTS vectors (hash BLOB PRIMARY KEY, vector BLOB NOT NULL)")
            known = dict(_known(database, list(by_hash)))
            steps = Steps(f"{self._embedder.name}, vectors", len(by_hash))
            steps.known(len(known))
            # Short texts first: they are the fast ones, and the ones that another chunking shares.
            missing = sorted(by_hash.keys() - known.keys(), key=lambda key: (len(by_hash[key]), key))
            for keys in _parts(missing, _BATCH):
                computed = await self._embedder.passages([by_hash[key] for key in keys])
                known |= dict(zip(keys, computed, strict=True))
                with database:
                    rows = ((key, known[key].astype("<f4").tobytes()) for key in keys)
                    database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
                steps(len(keys))
            steps.end()
        rows_of = [known[hashlib.sha256(text.encode()).digest()] for text in texts]
        return np.stack(rows_of) if rows_of else np.empty((0, 0), np.float32)


def _known(database: sqlite3.Connection, keys: list[bytes]) -> Iterator[tuple[bytes, Vectors]]:
    for some in _parts(keys, _TEXTS_PER_SELECT):
        marks = ",".join("?" * len(some))
        found = database.execute(f"SELECT hash, vector FROM vectors WHERE hash IN ({marks})", some)  # noqa: S608
        yield from ((key, np.frombuffer(vector, "<f4").astype(np.float32)) for key, vector in found)


def _parts(keys: list[bytes], size: int) -> Iterator[list[bytes]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
