"""A zygote as the worker sees it: started, asked, killed."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Protocol

import orjson
from pydantic import BaseModel, Field

from loam_ingestion.errors import ParserUnavailableError
from loam_ingestion.parsing.wire import ENDED, HEADER_BYTES, HEADINGS, HELLO, LENGTHS, TITLE_CHARACTERS, Request

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_START_SECONDS = 60
_BYTES_PER_CHARACTER = 4
_Title = Annotated[str, Field(max_length=TITLE_CHARACTERS)]
_Offset = Annotated[int, Field(ge=0)]


class OpenFile(Protocol):
    """A file with a descriptor that can be read at any position, such as a temporary file."""

    def fileno(self) -> int:
        """The descriptor."""


class Header(BaseModel):
    """What a child says beside the text."""

    error: Annotated[str, Field(max_length=1000)] | None = None
    media_type: Annotated[str, Field(max_length=100)] = ""
    title: _Title | None = None
    headings: Annotated[list[tuple[_Offset, _Offset, _Title]], Field(max_length=HEADINGS)] = []
    page_starts: Annotated[list[_Offset], Field(max_length=1_000_000)] = []


@dataclass(frozen=True)
class Answer:
    """How a child ended (its exit status, negative for a signal), and what it said if it said all of it."""

    status: int
    isolated: bool
    header: Header | None
    text: str


class Zygote:
    """A helper process of a session of its own, so that it can be killed with all that it started."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._greeted = False
        with theirs:
            # Popen starts it by vfork, which the worker's threads survive, and leaves it to us when its number is
            # free again, so that no other process is ever killed in its place.
            self._process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
                [sys.executable, "-I", "-m", "loam_ingestion.parsing", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A parser's complaints may quote the document, and documents do not go into logs.
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    async def started(self) -> None:
        """Wait until it can take a request. Raises ParserUnavailableError."""
        if self._greeted:
            return
        try:
            async with asyncio.timeout(_START_SECONDS):
                self._greeted = await _received(self._control, len(HELLO)) is not None
        except (TimeoutError, ConnectionError):
            pass
        if not self._greeted:
            raise ParserUnavailableError("the process that parses documents does not start")

    async def ask(self, request: Request, file: OpenFile) -> Answer | None:
        """Have one document parsed; None when the zygote itself ended.

        Raises ValueError when the answer is not one: the document has got hold of its parser.
        """
        ours, theirs = socket.socketpair()
        try:
            with ours:
                ours.setblocking(False)
                with theirs:
                    line = orjson.dumps(asdict(request)) + b"\n"
                    socket.send_fds(self._control, [line], [file.fileno(), theirs.fileno()])
                header, text = await _said(ours, _BYTES_PER_CHARACTER * request.text_characters)
            ended = await _received(self._control, ENDED.size)
        except ConnectionError:
            return None
        if ended is None:
            return None
        status, isolated = ENDED.unpack(ended)
        return Answer(status, isolated, header, text)

    def stop(self) -> None:
        """Begin to end it with its child; who waits for an answer of it sees its line end."""
        if self.alive:
            # Until it has been waited for, its number is still its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it with its child, once nobody waits for an answer."""
        self.stop()
        self._control.close()
        self._process.wait()


async def _said(channel: socket.socket, limit: int) -> tuple[Header | None, str]:
    lengths = await _received(channel, LENGTHS.size)
    if lengths is None:
        return None, ""
    head, body = LENGTHS.unpack(lengths)
    if head > HEADER_BYTES or body > limit:
        raise ValueError("the answer is longer than allowed")
    header, text = await _received(channel, head), await _received(channel, body)
    if header is None or text is None:
        return None, ""
    return Header.model_validate_json(header), str(text, "utf-8")


async def _received(channel: socket.socket, size: int) -> bytearray | None:
    """Exactly `size` bytes; None when the other side ended before."""
    loop, data = asyncio.get_running_loop(), bytearray(size)
    rest = memoryview(data)
    while rest:
        count = await loop.sock_recv_into(channel, rest)
        if not count:
            return None
        rest = rest[count:]
    return data
