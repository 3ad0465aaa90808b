"""JSON: the text is the file as it is written, so that spans are the file's own; its title is that of its object."""

import orjson

from loam_ingestion.parsing import Extracted, TextLimits
from loam_ingestion.parsing.text import decode

_TITLED_CHARACTERS = 1_000_000
_TITLES = ("title", "name")


def extract(data: bytes, limits: TextLimits) -> Extracted:  # noqa: ARG001 - every format is called in the same way
    """Raises UnreadableDocumentError when it is not text; what is no JSON is kept as the text that it is."""
    text = decode(data)
    return Extracted(text, _title(text) if len(text) <= _TITLED_CHARACTERS else None)


def _title(text: str) -> str | None:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    found = [content.get(name) for name in _TITLES] if isinstance(content, dict) else []
    return next((title for title in found if isinstance(title, str) and title.strip()), None)
