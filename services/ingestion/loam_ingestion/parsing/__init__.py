"""Bytes in, text out: one module per format, each a function ``extract(data, limits) -> Extracted``.

Documents come from anybody, so nothing here runs in the worker itself. The worker's side is `pool`; it starts helper
processes (`zygote`) that import the parsers once and fork a child with limits (`child`) for every document.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading at a character offset of the text; level 1 is the topmost."""

    start: int
    level: int
    title: str


@dataclass(frozen=True)
class Extracted:
    """A document's text, in which every span counts characters (code points) from 0.

    Of txt, md, csv, tsv, json and jsonl the text is the decoded file, character by character and without its byte order
    mark, so that a span is one of the file itself; what no store takes (U+0000, lone surrogates) is U+FFFD, one for
    one. Of html, docx and pdf it is what a reader sees, so that a span is one of that text and, in a PDF, the page
    tells where to look. Headings are in the order of the text; `page_starts` holds the offset at which each page
    begins, empty where there are no pages.
    """

    text: str
    title: str | None = None
    headings: tuple[Heading, ...] = ()
    page_starts: tuple[int, ...] = ()


@dataclass(frozen=True)
class TextLimits:
    """The part of the limits that parsers themselves look at, to stop early."""

    text_characters: int
    pages: int
