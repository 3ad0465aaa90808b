"""Markdown: no chunk crosses from one section into the next, in any format that has headings.

A section that fits together with the subsections below it stays whole, so that short sections do not become crumbs.
"""

from loam_ingestion.chunking.spans import Piece, cut
from loam_ingestion.chunking.tokens import count
from loam_ingestion.parsing import Extracted, Heading


def pieces(extracted: Extracted, room: int) -> list[Piece]:
    """Pieces section by section."""
    text = extracted.text
    return [
        Piece(first, last, floor=start)
        for start, end in _sections(extracted, room)
        for first, last in cut(text, start, end, room)
    ]


def _sections(extracted: Extracted, room: int) -> list[tuple[int, int]]:
    sections: list[tuple[int, int, int]] = []
    for start, end, level in _flat(extracted):
        parent = sections[-1] if sections else None
        if parent and level > parent[2] and count(extracted.text[parent[0] : end]) <= room:
            sections[-1] = (parent[0], end, parent[2])
        else:
            sections.append((start, end, level))
    return [(start, end) for start, end, _ in sections]


def _flat(extracted: Extracted) -> list[tuple[int, int, int]]:
    """Start, end and level of the text under each heading; what stands before the first one is level 0."""
    opening = [Heading(0, 0, "")] if not extracted.headings or extracted.headings[0].start > 0 else []
    marks = [*opening, *extracted.headings]
    ends = [*(mark.start for mark in marks[1:]), len(extracted.text)]
    return [(mark.start, end, mark.level) for mark, end in zip(marks, ends, strict=True)]
