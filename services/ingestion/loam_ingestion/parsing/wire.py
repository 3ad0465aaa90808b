"""What worker, zygote and child say to each other.

Worker to zygote: a `Request`, a line of JSON, with two descriptors: the document and a socket for the answer.
Child to worker, on that socket: the lengths of a header and a text, the header as JSON, the text as UTF-8.
Zygote to worker: `HELLO` once it can fork, then for each request how its child ended.
"""

import struct
from dataclasses import dataclass

HELLO = b"\x01"
LENGTHS = struct.Struct("!II")
ENDED = struct.Struct("!i?")
"""The child's exit status, negative for a signal, and whether it could reach no network."""
REQUEST_BYTES = 1 << 16
HEADER_BYTES = 16 << 20
HEADINGS = 100_000
"""The most headings that are kept of a document."""
TITLE_CHARACTERS = 500
"""The most characters that are kept of a title, a document's or a heading's."""


@dataclass(frozen=True)
class Request:
    """One document to parse; limits as in `loam_ingestion.settings.ParsingLimits`."""

    name: str
    media_type: str | None
    memory_bytes: int
    cpu_seconds: int
    wall_seconds: float
    text_characters: int
    pages: int
