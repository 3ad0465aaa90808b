"""Stand-ins for Anthropic's and OpenAI's servers: their wire protocols, what they refuse, and faults on demand.

They run in a thread of the test's own process, so that a test reads what was asked. That their answers are what the
providers' are is judged by the providers' own SDKs.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

from aiohttp import web
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from .embedded import HOST, free_ports

Json = dict[str, Any]
TEXT = "Das Wetter in Zürich ist schön ☀, und bleibt es."
THOUGHT, SIGNATURE, HIDDEN = "Let me see.", "c2lnbmF0dXJl", "aGlkZGVu"


@dataclass
class Fault:
    """What to do instead of answering well; once, unless `times` says otherwise.

    A stream is sent in pieces of `crumb` bytes. `cut_after` ends the connection after so many events, `usage` replaces
    what is told (None: nothing is told).
    """

    status: int = 200
    cut_after: int | None = None
    crumb: int = 2**16
    usage: Json | str | None = "true"
    delay: float = 0
    times: int = 1


@dataclass
class Asked:
    """One request."""

    path: str
    key: str
    body: Json


@dataclass
class Play:
    """What the servers were asked, and the faults that are still to come."""

    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    hung_up: int = 0

    def next(self) -> Fault:
        if not self.faults:
            return Fault()
        fault = self.faults[0]
        fault.times -= 1
        if fault.times <= 0:
            self.faults.pop(0)
        return fault


@dataclass
class StandIn:
    """A running server: `anthropic` and `openai` are base URLs."""

    url: str
    play: Play

    @property
    def anthropic(self) -> str:
        return self.url

    @property
    def openai(self) -> str:
        return f"{self.url}/v1"


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """The server, for the time of the context."""
    play, [port] = Play(), free_ports(1)
    loop, started = asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(_app(play), handle_signals=False, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        started.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield StandIn(f"http://{HOST}:{port}", play)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def _app(play: Play) -> web.Application:
    app = web.Application()

    async def messages(request: web.Request) -> web.StreamResponse:
        return await _answer(play, request, request.headers.get("x-api-key", ""), _Messages)

    async def completions(request: web.Request) -> web.StreamResponse:
        return await _answer(play, request, request.headers.get("authorization", ""), _Completions)

    async def embeddings(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        play.asked.append(Asked(request.path, request.headers.get("authorization", ""), body))
        return web.json_response(_embeddings(body))

    async def count(request: web.Request) -> web.StreamResponse:
        return web.json_response({"input_tokens": _tokens((await request.json())["messages"])})

    app.router.add_post("/v1/messages", messages)
    app.router.add_post("/v1/messages/count_tokens", count)
    app.router.add_post("/v1/chat/completions", completions)
    app.router.add_post("/v1/embeddings", embeddings)
    return app


async def _answer(
    play: Play, request: web.Request, key: str, kind: "type[_Messages | _Completions]"
) -> web.StreamResponse:
    body = await request.json()
    play.asked.append(Asked(request.path, key, body))
    fault = play.next()
    await asyncio.sleep(fault.delay)
    answer = kind(body, fault)
    if fault.status != 200:
        headers = answer.request_id | ({"retry-after": "7"} if fault.status == 429 else {})
        return web.json_response(answer.error(fault.status), status=fault.status, headers=headers)
    if refusal := answer.refusal():
        return web.json_response(answer.error(400, refusal), status=400, headers=answer.request_id)
    if not body.get("stream"):
        return web.json_response(answer.whole(), headers=answer.request_id)
    response = web.StreamResponse(headers={"content-type": "text/event-stream", **answer.request_id})
    await response.prepare(request)
    try:
        await _send(response, answer, fault)
    except (ConnectionError, asyncio.CancelledError):
        play.hung_up += 1
        raise
    return response


async def _send(response: web.StreamResponse, answer: "_Messages | _Completions", fault: Fault) -> None:
    sent = 0
    async for data in answer.events():
        if fault.cut_after is not None and sent >= fault.cut_after:
            assert response._req is not None
            transport = response._req.transport
            assert transport is not None
            transport.abort()
            return
        for start in range(0, len(data), fault.crumb):
            await response.write(data[start : start + fault.crumb])
            await asyncio.sleep(0)
        sent += 1


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + [text.rsplit(" ", maxsplit=1)[-1]]


def _tokens(value: Any) -> int:
    return len(json.dumps(value)) // 4


class _Messages:
    """Anthropic's answer to `body`."""

    request_id: ClassVar = {"request-id": "req_anthropic"}

    def __init__(self, body: Json, fault: Fault) -> None:
        self._body = body
        self._usage = _anthropic_usage(body) if fault.usage == "true" else fault.usage

    def refusal(self) -> str | None:
        known = get_type_hints(MessageCreateParamsNonStreaming) | get_type_hints(MessageCreateParamsStreaming)
        # Older models still take these.
        if strange := set(self._body) - set(known) - {"temperature", "top_p"}:
            return f"{min(strange)}: Extra inputs are not permitted"
        if "max_tokens" not in self._body:
            return "max_tokens: Field required"
        return _unanswered(self._body["messages"])

    def error(self, status: int, message: str = "played") -> Json:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
        return {"type": "error", "error": {"type": kinds.get(status, "overloaded_error"), "message": message}}

    def _blocks(self) -> list[Json]:
        blocks: list[Json] = []
        if "thinking" in self._body:
            blocks += [{"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}]
            blocks += [{"type": "redacted_thinking", "data": HIDDEN}]
        if (forced := self._body.get("tool_choice", {})).get("type") in {"tool", "any"}:
            name = forced.get("name") or self._body["tools"][0]["name"]
            return [*blocks, {"type": "tool_use", "id": "toolu_1", "name": name, "input": {"city": "Bern"}}]
        return [*blocks, {"type": "text", "text": TEXT}]

    def whole(self) -> Json:
        blocks = self._blocks()
        stop = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
        message = self._message() | {"content": blocks, "stop_reason": stop}
        return message | ({"usage": self._usage} if self._usage is not None else {})

    def _message(self) -> Json:
        facts = {"id": "msg_1", "type": "message", "role": "assistant", "model": self._body["model"]}
        return facts | {"content": [], "stop_reason": None, "stop_sequence": None}

    async def events(self) -> AsyncIterator[bytes]:
        blocks = self._blocks()
        told = {"usage": dict(self._usage, output_tokens=1)} if isinstance(self._usage, dict) else {}
        yield _named("message_start", message=self._message() | told)
        yield _named("ping")
        for index, block in enumerate(blocks):
            start, deltas = _deltas(block)
            yield _named("content_block_start", index=index, content_block=start)
            for delta in deltas:
                yield _named("content_block_delta", index=index, delta=delta)
            yield _named("content_block_stop", index=index)
        stop = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
        ended = {"usage": {"output_tokens": self._usage["output_tokens"]}} if isinstance(self._usage, dict) else {}
        yield _named("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, **ended)
        yield _named("message_stop")


def _deltas(block: Json) -> tuple[Json, list[Json]]:
    if block["type"] == "text":
        return block | {"text": ""}, [{"type": "text_delta", "text": word} for word in _words(block["text"])]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        deltas += [{"type": "signature_delta", "signature": block["signature"]}]
        return block | {"thinking": "", "signature": ""}, deltas
    if block["type"] == "tool_use":
        parts = ['{"city"', ': "Bern"}']
        return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return block, []


def _named(name: str, **payload: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name} | payload, ensure_ascii=False)}\n\n".encode()


def _anthropic_usage(body: Json) -> Json:
    marked = "cache_control" in json.dumps(body)
    return {
        "input_tokens": _tokens(body["messages"]),
        "output_tokens": 12,
        "cache_read_input_tokens": 100 if marked else 0,
        "cache_creation_input_tokens": 50 if marked else 0,
    }


def _unanswered(messages: list[Json]) -> str | None:
    """Every call has its result in the turn after it, and turns alternate."""
    for index, turn in enumerate(messages):
        if index and messages[index - 1]["role"] == turn["role"]:
            return f"messages.{index}: roles must alternate"
        uses = {block["id"] for block in turn["content"] if block["type"] == "tool_use"}
        after = messages[index + 1]["content"] if index + 1 < len(messages) else []
        if uses - {block.get("tool_use_id") for block in after}:
            return f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after"
    return None


class _Completions:
    """OpenAI's answer to `body`."""

    request_id: ClassVar = {"x-request-id": "req_openai"}

    def __init__(self, body: Json, fault: Fault) -> None:
        self._body = body
        self._usage = _openai_usage(body) if fault.usage == "true" else fault.usage

    def refusal(self) -> str | None:
        known = {*get_type_hints(CompletionCreateParamsNonStreaming), "stream"}
        if strange := set(self._body) - known:
            return f"Unrecognized request argument supplied: {min(strange)}"
        for message in self._body["messages"]:
            if strange := set(message) & {"cache_control", "reasoning_details", "is_error"}:
                return f"Unrecognized argument: {min(strange)}"
        return None

    def error(self, status: int, message: str = "played") -> Json:
        return {"error": {"message": message, "type": "server_error", "param": None, "code": str(status)}}

    def _message(self) -> Json:
        choice = self._body.get("tool_choice")
        if isinstance(choice, dict) or choice == "required":
            name = (
                choice["function"]["name"] if isinstance(choice, dict) else self._body["tools"][0]["function"]["name"]
            )
            function = {"name": name, "arguments": '{"city": "Bern"}'}
            calls = [{"id": "call_1", "type": "function", "function": function}]
            return {"role": "assistant", "content": None, "tool_calls": calls}
        text = '{"city": "Bern"}' if "response_format" in self._body else TEXT
        return {"role": "assistant", "content": text, "refusal": None}

    def _frame(self, kind: str, **more: Any) -> Json:
        return {"id": "chatcmpl-theirs", "object": kind, "created": 1, "model": self._body["model"]} | more

    def whole(self) -> Json:
        message = self._message()
        finish = "tool_calls" if "tool_calls" in message else "stop"
        choices = [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}]
        return self._frame("chat.completion", choices=choices) | (
            {"usage": self._usage} if self._usage is not None else {}
        )

    async def events(self) -> AsyncIterator[bytes]:
        message = self._message()
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        for call in message.get("tool_calls", ()):
            begun = call | {"index": 0, "function": call["function"] | {"arguments": ""}}
            yield self._chunk({"tool_calls": [begun]})
            yield self._chunk({"tool_calls": [{"index": 0, "function": {"arguments": call["function"]["arguments"]}}]})
        for word in _words(message["content"] or ""):
            yield self._chunk({"content": word})
        yield self._chunk({}, "tool_calls" if "tool_calls" in message else "stop")
        if self._usage is not None and (self._body.get("stream_options") or {}).get("include_usage"):
            frame = self._frame("chat.completion.chunk", choices=[], usage=self._usage)
            yield f"data: {json.dumps(frame)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        frame = self._frame("chat.completion.chunk", choices=choices)
        return f"data: {json.dumps(frame, ensure_ascii=False)}\n\n".encode()


def _openai_usage(body: Json) -> Json:
    prompt = _tokens(body["messages"])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": 12,
        "total_tokens": prompt + 12,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }


def _embeddings(body: Json) -> Json:
    dimensions = body.get("dimensions", 8)
    data = [
        {"object": "embedding", "index": index, "embedding": [float(len(text))] * dimensions}
        for index, text in enumerate(body["input"])
    ]
    counted = sum(_tokens(text) for text in body["input"])
    usage = {"prompt_tokens": counted, "total_tokens": counted}
    # The order is the server's affair: it is the index that counts.
    return {"object": "list", "model": body["model"], "data": data[::-1], "usage": usage}
