"""One HTTP exchange over plain ASGI: model ids carry encoded slashes, and the hot path has no use for a framework."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from loam_bedrock_local.errors import BedrockError, ValidationError

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_MOST_BYTES = 25_000_000


class HungUpError(Exception):
    """The caller closed the connection."""


class Exchange:
    """A request, and the way back to whom it came from."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("ascii")
        self.query: bytes = scope["query_string"]
        self.headers: list[Header] = scope["headers"]
        self.request_id = str(uuid.uuid4())
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str:
        """The first value of a header, or nothing."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            HungUpError: the caller went away before its end.
            ValidationError: it is larger than Bedrock takes.
        """
        chunks, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise HungUpError
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > _MOST_BYTES:
                raise ValidationError("Input is too long for requested model.")
            if not message.get("more_body"):
                return b"".join(chunks)

    async def pause(self, seconds: float) -> None:
        """Wait, but not for somebody who is gone.

        Raises:
            HungUpError: the caller went away meanwhile.
        """
        try:
            # Once the body is read, the only message left to come is the disconnect.
            await asyncio.wait_for(self._receive(), seconds)
        except TimeoutError:
            return
        raise HungUpError

    async def answer(self, body: Any, *headers: Header, status: int = 200) -> None:
        """A whole JSON answer; arrays of numpy are written as they are."""
        encoded = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        length = (b"content-length", str(len(encoded)).encode())
        await self._start(status, b"application/json", length, *headers)
        await self._send({"type": "http.response.body", "body": encoded})

    async def refuse(self, error: BedrockError) -> None:
        """An error as AWS writes it."""
        await self.answer({"message": error.message}, (b"x-amzn-errortype", error.name.encode()), status=error.status)

    async def drop(self, body: Any) -> None:
        """Send half of `body` and leave it at that: the server then closes the connection."""
        encoded = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        # Without a Content-Length, for botocore takes a body that is shorter than promised for a whole one.
        await self.begin("application/json")
        await self.chunk(encoded[: len(encoded) // 2])

    async def begin(self, content_type: str) -> None:
        """The head of a streamed answer."""
        await self._start(200, content_type.encode())

    async def chunk(self, body: bytes) -> None:
        """A part of a streamed answer."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """The last part of a streamed answer."""
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, content_type: bytes, *headers: Header) -> None:
        common = (b"x-amzn-requestid", self.request_id.encode()), (b"content-type", content_type)
        await self._send({"type": "http.response.start", "status": status, "headers": [*common, *headers]})
