"""The Converse API: from a request's body to content blocks, and these to one JSON document or a stream of events."""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from loam_bedrock_local import eventstream, tokens
from loam_bedrock_local.prompt import Json

_TOKENS_PER_DELTA = 4
# Bedrock pads events to hide their lengths from eavesdroppers; clients must ignore the padding.
_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call of a tool. `partial` is set to the JSON's beginning where maxTokens cut it."""

    id: str
    name: str
    input: Json
    partial: str | None = None

    @property
    def json(self) -> str:
        """The input as it is streamed."""
        return orjson.dumps(self.input).decode() if self.partial is None else self.partial


@dataclass(frozen=True, slots=True)
class Usage:
    """What is billed, in tokens. The cache figures are None for requests that do not use the cache."""

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None

    def render(self) -> Json:
        """The shape that Converse and its stream's last event carry."""
        cached = {}
        if self.cache_read is not None and self.cache_write is not None:
            cached = {
                "cacheReadInputTokenCount": self.cache_read,
                "cacheReadInputTokens": self.cache_read,
                "cacheWriteInputTokenCount": self.cache_write,
                "cacheWriteInputTokens": self.cache_write,
            }
        total = self.input + self.output + (self.cache_read or 0) + (self.cache_write or 0)
        return cached | {
            "inputTokens": self.input,
            "outputTokens": self.output,
            "serverToolUsage": {},
            "totalTokens": total,
        }


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer."""

    blocks: tuple[str | ToolUse, ...]
    stop_reason: str
    usage: Usage


def document(completion: Completion, latency_ms: int, extras: Json) -> Json:
    """The answer of Converse."""
    content = [_block(block) for block in completion.blocks]
    return {
        "metrics": {"latencyMs": latency_ms},
        "output": {"message": {"content": content, "role": "assistant"}},
        **extras,
        "stopReason": completion.stop_reason,
        "usage": completion.usage.render(),
    }


def _block(block: str | ToolUse) -> Json:
    if isinstance(block, str):
        return {"text": block}
    return {"toolUse": {"input": block.input, "name": block.name, "toolUseId": block.id}}


def events(completion: Completion) -> Iterator[tuple[bytes, int]]:
    """The answer of ConverseStream up to its messageStop, each event with the output tokens that it brings."""
    yield _event("messageStart", {"role": "assistant"}), 0
    for index, block in enumerate(completion.blocks):
        if isinstance(block, ToolUse):
            start = {"toolUse": {"name": block.name, "toolUseId": block.id}}
            yield _event("contentBlockStart", {"contentBlockIndex": index, "start": start}), tokens.count(block.name)
        for piece in _pieces(block):
            delta = {"text": piece} if isinstance(block, str) else {"toolUse": {"input": piece}}
            yield _event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}), tokens.count(piece)
        yield _event("contentBlockStop", {"contentBlockIndex": index}), 0
    yield _event("messageStop", {"stopReason": completion.stop_reason}), 0


def metadata_event(completion: Completion, latency_ms: int, extras: Json) -> bytes:
    """The last event of a stream, which brings the usage."""
    return _event("metadata", {"metrics": {"latencyMs": latency_ms}, **extras, "usage": completion.usage.render()})


def _pieces(block: str | ToolUse) -> list[str]:
    return tokens.pieces(block if isinstance(block, str) else block.json, _TOKENS_PER_DELTA)


def _event(kind: str, payload: Json) -> bytes:
    body = orjson.dumps(payload)
    padding = _PADDING[: len(body) * 7 % len(_PADDING)]
    return eventstream.event(kind, body[:-1] + b',"p":"' + padding.encode() + b'"}')
