"""Bytes in, text out: one module per format, each a function ``extract(data) -> Extracted``.

Documents come from anybody, so nothing here runs in the worker itself: `sandbox` starts a fresh process with limits for
every document, whose main module is this package's.
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
    """A document's text. `page_starts` holds the offset at which each page begins, empty where there are no pages."""

    text: str
    title: str | None = None
    headings: tuple[Heading, ...] = ()
    page_starts: tuple[int, ...] = ()
