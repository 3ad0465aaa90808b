"""Recursive: paragraphs, then lines, then sentences, then clauses, then words, as large as fits."""

from loam_ingestion.chunking.spans import Piece, cut
from loam_ingestion.parsing import Extracted


def pieces(extracted: Extracted, room: int) -> list[Piece]:
    """Pieces of the whole text."""
    return [Piece(start, end) for start, end in cut(extracted.text, 0, len(extracted.text), room)]
