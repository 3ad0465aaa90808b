"""Sentence: whole sentences, as many as fit; only a sentence that is too long by itself is cut."""

import itertools
import re

from loam_ingestion.chunking.spans import Piece, cut
from loam_ingestion.chunking.tokens import count
from loam_ingestion.parsing import Extracted

# A sentence ends at its sign when white space and something other than a small letter follow, or at an empty line.
_END = re.compile(
    r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]]*\s+(?=[^a-z\s])"
    r"|(?<=[\u3002\uff01\uff1f])"  # the ideographic full stop and the full-width signs
    r"|\n\s*\n"
)


def pieces(extracted: Extracted, room: int) -> list[Piece]:
    """Pieces of whole sentences."""
    text, packed, size = extracted.text, [], 0
    for start, end in _sentences(text):
        tokens = count(text[start:end])
        if tokens > room:
            packed += [Piece(first, last) for first, last in cut(text, start, end, room)]
            size = room
        elif packed and size + tokens <= room:
            packed[-1] = Piece(packed[-1].start, end)
            size += tokens
        else:
            packed.append(Piece(start, end))
            size = tokens
    return packed


def _sentences(text: str) -> list[tuple[int, int]]:
    bounds = [0, *(match.end() for match in _END.finditer(text)), len(text)]
    spans = []
    for start, end in itertools.pairwise(bounds):
        inner = text[start:end]
        if inner.strip():
            lead = len(inner) - len(inner.lstrip())
            spans.append((start + lead, start + len(inner.rstrip())))
    return spans
