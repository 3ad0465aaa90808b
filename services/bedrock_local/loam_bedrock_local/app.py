"""The HTTP face: plain ASGI, because model ids carry encoded slashes and the hot path has no use for a framework."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import orjson

from loam_bedrock_local import converse, eventstream
from loam_bedrock_local.answer import Answerer
from loam_bedrock_local.auth import Gate
from loam_bedrock_local.billing import Meter
from loam_bedrock_local.converse import Usage
from loam_bedrock_local.embedder import Embedder
from loam_bedrock_local.engine import Engine, input_tokens
from loam_bedrock_local.errors import BedrockError, UnknownOperationError, ValidationError
from loam_bedrock_local.invoke import Invoker
from loam_bedrock_local.models import Model, resolve
from loam_bedrock_local.prompt import Json

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Operation = Callable[[Model, Json, Send, Headers], Awaitable[None]]

_MOST_BYTES = 25_000_000
_JSON = (b"content-type", b"application/json")


class App:
    """The ASGI application."""

    def __init__(self, gate: Gate, engine: Engine, invoker: Invoker, meter: Meter) -> None:
        self._gate = gate
        self._engine = engine
        self._invoker = invoker
        self._meter = meter
        self._operations: dict[str, Operation] = {
            "converse": self._converse,
            "converse-stream": self._converse_stream,
            "invoke": self._invoke,
            "count-tokens": self._count_tokens,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request_id: Headers = [(b"x-amzn-requestid", str(uuid.uuid4()).encode())]
        try:
            await self._route(scope, receive, send, request_id)
        except BedrockError as error:
            headers = [*request_id, _JSON, (b"x-amzn-errortype", error.name.encode())]
            await _send(send, error.status, orjson.dumps({"message": error.message}), headers)

    async def _route(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        path = scope["raw_path"].decode("ascii")
        if path == "/healthz":
            await _send(send, 200, b'{"status":"ok"}', [*headers, _JSON])
            return
        if path == "/_local/billed":
            await _send(send, 200, orjson.dumps(self._meter.report()), [*headers, _JSON])
            return
        model_path, _, name = path.rpartition("/")
        operation = self._operations.get(name)
        if operation is None or not model_path.startswith("/model/") or scope["method"] != "POST":
            raise UnknownOperationError(f"No operation at {scope['method']} {path}")
        self._gate.admit(_header(scope, b"authorization"))
        body = await _read(receive)
        await operation(resolve(unquote(model_path[len("/model/") :])), _parse(body), send, headers)

    async def _converse(self, model: Model, body: Json, send: Send, headers: Headers) -> None:
        started = time.perf_counter()
        completion = self._engine.complete(model, body)
        self._meter.bill(model.id, completion.usage)
        answer = converse.document(completion, _elapsed_ms(started), _extras(body))
        await _send(send, 200, orjson.dumps(answer), [*headers, _JSON])

    async def _converse_stream(self, model: Model, body: Json, send: Send, headers: Headers) -> None:
        started = time.perf_counter()
        completion = self._engine.complete(model, body)
        usage = completion.usage
        self._meter.bill(model.id, Usage(usage.input, 0, usage.cache_read, usage.cache_write))
        stream_type = (b"content-type", eventstream.CONTENT_TYPE.encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, stream_type]})
        for event, output_tokens in converse.events(completion):
            self._meter.bill_output(model.id, output_tokens)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        last = converse.metadata_event(completion, _elapsed_ms(started), _extras(body))
        await send({"type": "http.response.body", "body": last})

    async def _invoke(self, model: Model, body: Json, send: Send, headers: Headers) -> None:
        started = time.perf_counter()
        answer, counted = self._invoker.invoke(model, body)
        self._meter.bill(model.id, Usage(counted, 0))
        metered = [
            (b"x-amzn-bedrock-input-token-count", str(counted).encode()),
            (b"x-amzn-bedrock-invocation-latency", str(_elapsed_ms(started)).encode()),
        ]
        await _send(send, 200, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), [*headers, _JSON, *metered])

    async def _count_tokens(self, model: Model, body: Json, send: Send, headers: Headers) -> None:
        request = (body.get("input") or {}).get("converse")
        if model.kind != "Chat" or not request:
            raise ValidationError("The provided model doesn't support counting tokens.")
        await _send(send, 200, orjson.dumps({"inputTokens": input_tokens(request)}), [*headers, _JSON])


def build(gate: Gate) -> App:
    """The application with everything that it needs, the embedding table loaded."""
    embedder = Embedder()
    embedder.load()
    return App(gate, Engine(Answerer(embedder)), Invoker(embedder), Meter())


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        body += message.get("body", b"")
        if len(body) > _MOST_BYTES:
            raise ValidationError("Input is too long for requested model.")
        if not message.get("more_body"):
            return body


def _parse(body: bytes) -> Json:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValidationError(f"Malformed input request: {error}, please reformat your input and try again.") from error
    if not isinstance(parsed, dict):
        raise ValidationError("Malformed input request: expected an object, please reformat your input and try again.")
    return parsed


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _elapsed_ms(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


def _extras(body: Json) -> Json:
    """What Converse repeats of the request."""
    return {name: body[name] for name in ("performanceConfig", "serviceTier") if name in body}
