"""AWS's binary event stream (``application/vnd.amazon.eventstream``), the encoding half.

A message is: total length (4 bytes), headers' length (4), CRC-32 of those eight (4), headers, payload, CRC-32 of all
before it (4); numbers are big-endian. A header is: name's length (1 byte), name, type (1; 7 is a string), value's
length (2), value.
"""

import struct
from functools import cache
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7
_OVERHEAD = 16


def event(kind: str, payload: bytes) -> bytes:
    """One event of type `kind` with a JSON payload."""
    return message(
        _headers(("event-type", kind), ("content-type", "application/json"), ("message-type", "event")), payload
    )


def exception(kind: str, payload: bytes) -> bytes:
    """An error after the stream has begun; the SDK raises it and reads no further."""
    return message(
        _headers(("exception-type", kind), ("content-type", "application/json"), ("message-type", "exception")), payload
    )


def message(headers: bytes, payload: bytes) -> bytes:
    """The framing around already encoded headers and a payload."""
    prelude = struct.pack(">II", _OVERHEAD + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return body + struct.pack(">I", crc32(body))


@cache
def _headers(*pairs: tuple[str, str]) -> bytes:
    # A server ever sends a dozen different header sets, so each is encoded once.
    return b"".join(header(f":{name}", value) for name, value in pairs)


def header(name: str, value: str) -> bytes:
    """A header with a string value."""
    raw_name, raw_value = name.encode(), value.encode()
    return struct.pack(">B", len(raw_name)) + raw_name + struct.pack(">BH", _STRING, len(raw_value)) + raw_value
