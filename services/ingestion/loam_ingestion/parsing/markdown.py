"""Markdown: the text is the file as it is written (models read Markdown well), plus where its headings are."""

import re

from loam_ingestion.parsing import Extracted, Heading, TextLimits
from loam_ingestion.parsing.text import decode

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t](.*)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r"^title:(.*)$", re.MULTILINE)


def extract(data: bytes, limits: TextLimits) -> Extracted:  # noqa: ARG001 - every format is called in the same way
    """Raises UnreadableDocumentError when it is not text."""
    text = decode(data)
    front_matter = _FRONT_MATTER.match(text)
    found = headings(text, front_matter.end() if front_matter else 0)
    titled = _TITLE.search(front_matter[1]) if front_matter else None
    named = titled[1].strip().strip("\"'").strip() if titled else ""
    title = named or next((heading.title for heading in found), None)
    return Extracted(text, title, tuple(found))


def headings(text: str, start: int = 0) -> list[Heading]:
    """Headings of both styles (``# so`` and underlined) that lie outside of code blocks."""
    found: list[Heading] = []
    fence, previous, previous_start, offset = "", "", start, start
    for line in text[start:].splitlines(keepends=True):
        bare = line.rstrip("\r\n")
        marker = _FENCE.match(bare)
        if fence:
            fence = "" if marker and marker[1].startswith(fence) else fence
        elif marker:
            fence = marker[1]
        else:
            found += _heading_of(bare, offset, previous, previous_start)
        previous, previous_start = ("" if fence or marker else bare), offset
        offset += len(line)
    return found


def _heading_of(line: str, start: int, previous: str, previous_start: int) -> list[Heading]:
    if marked := _HEADING.match(line):
        title = _unclosed(marked[2].strip())
        return [Heading(start, len(marked[1]), title)] if title else []
    paragraph = previous.strip() and not previous.lstrip().startswith(("#", "-", "*", "+", ">", "|"))
    if paragraph and (underline := _UNDERLINE.match(line)):
        return [Heading(previous_start, 1 if "=" in underline[1] else 2, previous.strip())]
    return []


def _unclosed(title: str) -> str:
    """Without the number signs that may close a heading."""
    bare = title.rstrip("#")
    return bare.rstrip() if not bare or bare[-1] in " \t" else title
