"""What `loam eval` hands to the process that measures. Where a gateway is, and its key, travel in the environment."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Mode = Literal["Keyword", "Vector", "Hybrid"]
Dimension = Literal["modes", "chunkings", "models"]

NOTHING_TO_MEASURE = 77
"""Exit code when the folder is not there: the one by which test harnesses know that something was skipped."""


class Evaluation(BaseModel):
    """What to measure; what is left empty is chosen by the kind of folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    answers: bool = False
    compare: Dimension | None = None
    modes: tuple[Mode, ...] = ()
    chunkings: tuple[str, ...] = ()
    """Such as ``Recursive:256:32``: strategy, most tokens, tokens of overlap."""
    embedders: tuple[str, ...] = ()
    """Names of local models, or ``gateway:MODEL``."""
    split: str | None = None
    pipeline: str | None = None
    as_json: bool = False
