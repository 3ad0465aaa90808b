"""Extracted text in, chunks out: exact spans of the text, deterministic, each at most `max_tokens` long.

A strategy cuts a text into pieces that do not overlap, each small enough to leave room for the overlap. That is then
added in one place: every piece but the first of its section begins exactly `overlap_tokens` tokens earlier.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from loam_ingestion.chunking import markdown, recursive, sentence
from loam_ingestion.chunking.spans import Piece
from loam_ingestion.chunking.tokens import TOKEN
from loam_ingestion.parsing import Extracted
from loam_shared.contracts.internal import Chunking

_STRATEGIES: dict[str, Callable[[Extracted, int], list[Piece]]] = {
    "Recursive": recursive.pieces,
    "Markdown": markdown.pieces,
    "Sentence": sentence.pieces,
}


@dataclass(frozen=True)
class Chunk:
    """``text == extracted.text[start:end]``; `page` counts from 1, None where the format has no pages."""

    ordinal: int
    start: int
    end: int
    text: str
    page: int | None

    @property
    def content_hash(self) -> str:
        """Equal texts have equal hashes, and so need one embedding only."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def chunk(extracted: Extracted, chunking: Chunking) -> list[Chunk]:
    """The document's chunks in reading order."""
    room = max(1, chunking.max_tokens - chunking.overlap_tokens)
    pieces = _STRATEGIES[chunking.strategy](extracted, room)
    spans = _overlapping(extracted.text, pieces, chunking.overlap_tokens)
    return [
        Chunk(ordinal, start, end, extracted.text[start:end], _page(extracted, start))
        for ordinal, (start, end) in enumerate(spans)
    ]


def _overlapping(text: str, pieces: list[Piece], overlap: int) -> list[tuple[int, int]]:
    if not overlap:
        return [(piece.start, piece.end) for piece in pieces]
    starts = [match.start() for match in TOKEN.finditer(text)]
    spans = []
    for piece in pieces:
        first = bisect_left(starts, piece.start) - overlap
        spans.append((max(starts[max(first, 0)], piece.floor), piece.end))
    return spans


def _page(extracted: Extracted, start: int) -> int | None:
    return bisect_right(extracted.page_starts, start) or None
