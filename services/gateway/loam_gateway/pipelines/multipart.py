"""Files in a ``multipart/form-data`` body, as they arrive: nothing is kept but the piece at hand."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from loam_shared.errors import InvalidRequestError

_EXTENDED_NAME = re.compile(r"filename\*=utf-8''([^;]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file: its name and media type as given, and its bytes, to be read before the next part is asked for."""

    name: str
    media_type: str | None
    body: AsyncIterator[bytes]


async def files(content_type: str, body: AsyncIterator[bytes]) -> AsyncIterator[FilePart]:
    """The files among the parts of `body`; other fields are passed over. Raises InvalidRequestError when malformed."""
    _, options = parse_options_header(content_type)
    if not (boundary := options.get(b"boundary")):
        raise InvalidRequestError("the multipart body has no boundary in its Content-Type")
    try:
        parser = _Parser(boundary)
    except FormParserError as error:
        raise InvalidRequestError(f"the multipart body is malformed: {error}") from error
    events = _events(parser, body)
    async for event in events:
        if isinstance(event, _Headers) and (name := event.file_name()) is not None:
            yield FilePart(name, event.media_type(), _until_end(events))


@dataclass(slots=True)
class _Headers:
    """What a part says about itself; names in lower case."""

    values: dict[str, str] = field(default_factory=dict)

    def file_name(self) -> str | None:
        disposition = self.values.get("content-disposition", "")
        # RFC 7578 forbids this form, and some clients send it all the same, with a mangled plain one beside it.
        if extended := _EXTENDED_NAME.search(disposition):
            return unquote(extended[1])
        _, options = parse_options_header(disposition)
        name = options.get(b"filename")
        return None if name is None else _utf8(name)

    def media_type(self) -> str | None:
        return self.values.get("content-type", "").partition(";")[0].strip().lower() or None


_Event = _Headers | bytes | None  # a part begins, some of its bytes, it ends


class _Parser:
    """python-multipart calls back while it is fed; this turns the calls into a list of events."""

    def __init__(self, boundary: bytes) -> None:
        self.complete = False
        self._events: list[_Event] = []
        self._headers = _Headers()
        self._name, self._value = b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
                "on_part_end": lambda: self._events.append(None),
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> list[_Event]:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequestError(f"the multipart body is malformed: {error}") from error
        events, self._events = self._events, []
        return events

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers.values[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        self._events.append(self._headers)
        self._headers = _Headers()

    def _on_end(self) -> None:
        self.complete = True


async def _events(parser: _Parser, body: AsyncIterator[bytes]) -> AsyncIterator[_Event]:
    async for chunk in body:
        for event in parser.feed(chunk):
            yield event
    if not parser.complete:
        raise InvalidRequestError("the multipart body ends before its last boundary")


async def _until_end(events: AsyncIterator[_Event]) -> AsyncIterator[bytes]:
    async for event in events:
        if event is None:
            return
        assert isinstance(event, bytes)
        yield event


def _utf8(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
