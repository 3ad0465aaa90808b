"""Plain text: the text is the file, character by character."""

import codecs

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def extract(data: bytes) -> Extracted:
    """Raises UnreadableDocumentError when it is not text."""
    return Extracted(decode(data))


def decode(data: bytes) -> str:
    """Text in UTF-8, in UTF-16 with its mark, or else in Windows-1252, which old exports use."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return _decode_as(data, encoding)
    if b"\0" in data:
        raise UnreadableDocumentError("The content is binary, not text; send the document in a format with text.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_as(data, "cp1252")


def _decode_as(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise UnreadableDocumentError("Its characters cannot be decoded; save the document as UTF-8.") from None
