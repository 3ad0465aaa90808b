"""A provider that costs next to nothing, so that a benchmark measures what stands before it.

It speaks Bedrock's Converse and ConverseStream and OpenAI's chat completions, and says the same at once to everybody.
Of a stream the first piece comes at once, the others one after another; the prompt says how far apart, as ``pace=0.02``
in seconds. ``python -m tests.bench.provider PORT`` serves until it is ended.
"""

import asyncio
import re
import sys
from functools import partial

import httptools
import orjson
import uvloop

from loam_bedrock_local import eventstream

TEXT = "Every tenant has a namespace, a budget and an index of its own, and none of them sees another's. "
PIECES = 10
_INPUT_TOKENS, _OUTPUT_TOKENS = 12, 22
_PACE = re.compile(rb"pace=([0-9.]+)")


USAGE = {"inputTokens": _INPUT_TOKENS, "outputTokens": _OUTPUT_TOKENS, "totalTokens": _INPUT_TOKENS + _OUTPUT_TOKENS}


def converse_answer() -> bytes:
    message = {"role": "assistant", "content": [{"text": TEXT}]}
    answer = {"output": {"message": message}, "stopReason": "end_turn", "usage": USAGE, "metrics": {"latencyMs": 1}}
    return orjson.dumps(answer)


def openai_answer() -> bytes:
    usage = {"prompt_tokens": _INPUT_TOKENS, "completion_tokens": _OUTPUT_TOKENS}
    usage["total_tokens"] = sum(usage.values())
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "mock", "choices": [choice]}
    return orjson.dumps(answer | {"usage": usage})


def stream_pieces() -> list[bytes]:
    """The events of a stream: the first with the first word, the last with its end."""
    word = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a word or two "}})
    end = event("messageStop", {"stopReason": "end_turn"}) + event("metadata", {"usage": USAGE, "metrics": {}})
    return [event("messageStart", {"role": "assistant"}) + word, *[word] * (PIECES - 2), end]


def event(kind: str, payload: object) -> bytes:
    return eventstream.event(kind, orjson.dumps(payload))


def whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-amzn-requestid: 1\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


CONVERSE, OPENAI = whole(converse_answer()), whole(openai_answer())
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % eventstream.CONTENT_TYPE.encode()
STREAM = [chunk(piece) for piece in stream_pieces()]


class Connection(asyncio.Protocol):
    """Serves one connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/converse-stream"):
            found = _PACE.search(self._body)
            self._transport.write(HEAD)
            self._send(float(found[1]) if found else 0.0, 0)
        else:
            self._transport.write(CONVERSE if self._url.endswith(b"/converse") else OPENAI)

    def _send(self, pace: float, sent: int) -> None:
        self._transport.write(STREAM[sent])
        if sent + 1 < len(STREAM):
            later = partial(self._send, pace, sent + 1)
            self._timer = asyncio.get_running_loop().call_later(pace, later)
        else:
            self._transport.write(chunk(b""))


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
