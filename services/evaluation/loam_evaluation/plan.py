"""What is measured in one evaluation: models, chunkings and modes, each library of them built once."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from loam_evaluation.errors import EvaluationError
from loam_shared.contracts import internal
from loam_shared.contracts.evaluation import Evaluation, Mode
from loam_shared.contracts.internal import Chunking

MODES: tuple[Mode, ...] = ("Keyword", "Vector", "Hybrid")
STRATEGIES = ("Recursive", "Markdown", "Sentence")
SIZES = ("128:16", "200:20", "256:32", "300:30", "400:40", "600:60", "800:80")
WHOLE = "Whole"
"""The chunking that leaves documents as they are."""


@dataclass(frozen=True)
class Setup:
    """One index, and the modes in which it is searched."""

    embedder: str
    chunking: str
    modes: tuple[Mode, ...]


def chunking_of(name: str) -> Chunking | None:
    """``Recursive:256:32`` as settings, None for ``Whole``. Raises EvaluationError."""
    if name == WHOLE:
        return None
    strategy, _, sizes = name.partition(":")
    most, _, overlap = sizes.partition(":")
    try:
        chunking = Chunking.model_validate({"strategy": strategy, "maxTokens": most, "overlapTokens": overlap or 0})
    except ValidationError as error:
        raise EvaluationError(
            f"chunking {name!r}: {error.errors()[0]['msg']}; write it like Recursive:256:32 (strategy, most tokens, "
            f"tokens of overlap), or {WHOLE}"
        ) from error
    if 2 * chunking.overlap_tokens > chunking.max_tokens:
        raise EvaluationError(f"chunking {name!r}: the overlap may be at most half of the size")
    return chunking


def name_of(chunking: Chunking) -> str:
    """The settings as they are written on the command line."""
    return f"{chunking.strategy}:{chunking.max_tokens}:{chunking.overlap_tokens}"


DEFAULT_CHUNKING = name_of(internal.DEFAULT_CHUNKING)


def grid() -> tuple[str, ...]:
    """The chunkings that are compared when none are named; the default is among them."""
    return tuple(f"{strategy}:{size}" for strategy in STRATEGIES for size in SIZES)


def for_ranking(wanted: Evaluation, models: Sequence[str]) -> list[Setup]:
    """Documents of a retrieval task are passages already, so they stay whole unless chunkings are compared."""
    some = (WHOLE, *(f"Recursive:{size}" for size in SIZES))
    comparing_chunkings = wanted.compare == "chunkings"
    return _setups(
        wanted,
        models[:1] if comparing_chunkings else models,
        some if comparing_chunkings else (WHOLE,),
        MODES if wanted.compare in {None, "modes"} else ("Hybrid",),
    )


def for_spans(wanted: Evaluation, models: Sequence[str]) -> list[Setup]:
    """Chunkings, unless something else is compared; then the default one."""
    return _setups(
        wanted,
        models if wanted.compare == "models" else models[:1],
        grid() if wanted.compare in {None, "chunkings"} else (DEFAULT_CHUNKING,),
        MODES if wanted.compare == "modes" else ("Hybrid",),
    )


def for_answers(wanted: Evaluation, models: Sequence[str]) -> Setup:
    """The one index that is answered from."""
    return _setups(wanted, models[:1], (DEFAULT_CHUNKING,), ("Hybrid",))[0]


def _setups(
    wanted: Evaluation, models: Sequence[str], chunkings: Sequence[str], modes: tuple[Mode, ...]
) -> list[Setup]:
    """Every chunking with every model; what was asked for by name goes before the defaults. Raises EvaluationError."""
    for name in wanted.chunkings:
        chunking_of(name)
    if not (wanted.embedders or models):
        raise EvaluationError("there is no local model here: install loam[eval], or name one with --embedder")
    return [
        Setup(model, chunking, wanted.modes or modes)
        for model in wanted.embedders or models
        for chunking in wanted.chunkings or chunkings
    ]
