"""Where every benchmark puts its figures: build/bench/<name>.json, one flat object of names and values."""

import json
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "build" / "bench"


def write(name: str, figures: Mapping[str, float]) -> None:
    """Write the figures of one benchmark, replacing those of an earlier run."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    (_FOLDER / f"{name}.json").write_text(json.dumps(dict(figures), indent=1) + "\n")
