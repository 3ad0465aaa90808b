"""Spans of a text, and cutting them to size."""

from dataclasses import dataclass

import semchunk

from loam_ingestion.chunking.tokens import count


@dataclass(frozen=True)
class Piece:
    """A span without overlap; its overlap may reach back to `floor`, where its section begins."""

    start: int
    end: int
    floor: int = 0


def cut(text: str, start: int, end: int, room: int) -> list[tuple[int, int]]:
    """Spans within ``text[start:end]`` of at most `room` tokens each, cut at the most meaningful places there are."""
    # Without memoising: semchunk would keep every text that it ever saw.
    _, offsets = semchunk.chunk(text[start:end], room, count, memoize=False, offsets=True)
    return [
        _trimmed(text, start + first, start + last)
        for first, last in offsets
        if text[start + first : start + last].strip()
    ]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
