"""Plain text and what is read as such: the text is the file, character by character."""

import codecs
import contextlib
import encodings.aliases

import charset_normalizer

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, TextLimits

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_ASCII = bytes(range(128))
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1b"))
_REPLACEMENT = "\ufffd"
_SAMPLE_BYTES = 1 << 16


def warm_up() -> None:
    """Load the decoders, which Python reads from files when they are first used."""
    for encoding in set(encodings.aliases.aliases.values()):
        with contextlib.suppress(LookupError):  # some are for one system only
            codecs.lookup(encoding)
    charset_normalizer.from_bytes("Съешь ещё этих мягких булок".encode("cp1251")).best()


def extract(data: bytes, limits: TextLimits) -> Extracted:  # noqa: ARG001 - every format is called in the same way
    """Raises UnreadableDocumentError when it is not text."""
    return Extracted(decode(data))


def decode(data: bytes) -> str:
    """The characters without a byte order mark, U+FFFD for what is broken.

    UTF-8, UTF-16 and UTF-32 by their marks; UTF-16 without one by its zeros; UTF-8 even with a few bytes broken; then
    Windows-1252 for what is mostly ASCII, or the encoding that the letters speak for.
    Raises UnreadableDocumentError when it is not text.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return _mended(data[len(mark) :], encoding)
    if unmarked := _unmarked_utf16(data[:_SAMPLE_BYTES]):
        return _mended(data, unmarked)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = _not_quite_utf8(data)
    return text


def is_marked(data: bytes) -> bool:
    """Whether a byte order mark says what the encoding is."""
    return data.startswith(tuple(_MARKS))


def _mended(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "replace")
    if text.count(_REPLACEMENT) * 10 > len(text):
        raise UnreadableDocumentError("Its characters cannot be decoded; save the document as UTF-8.")
    return text


def _unmarked_utf16(sample: bytes) -> str | None:
    """Text of the Latin alphabet has a zero in every other byte, and none in between."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) * 8 <= len(sample) or min(even, odd) * 20 > max(even, odd):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _not_quite_utf8(data: bytes) -> str:
    if _is_binary(data):
        raise UnreadableDocumentError("The content is binary, not text; send the document in a format with text.")
    with contextlib.suppress(UnicodeDecodeError):
        # Some programs write UTF-16's halves of a character in UTF-8, one by one; those without their other half go.
        return data.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = data.decode("utf-8", "replace")
    broken = text.count(_REPLACEMENT)
    if broken * 10 < _beyond_ascii(text) - broken:
        return text
    return _legacy(data)


def _legacy(data: bytes) -> str:
    high = len(data.translate(None, _ASCII))
    if high * 3 > len(data) and (guess := charset_normalizer.from_bytes(data[:_SAMPLE_BYTES]).best()):
        return _mended(data, guess.encoding)
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        raise UnreadableDocumentError("Its characters cannot be decoded; save the document as UTF-8.") from None


def _beyond_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))


def _is_binary(data: bytes) -> bool:
    controls = len(data) - len(data.translate(None, _CONTROLS))
    return b"\0" in data or controls * 50 > len(data)
