"""The Converse API: from a request's body to content blocks, and these to one JSON document or a stream of events."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import orjson

from loam_bedrock_local import eventstream, tokens
from loam_bedrock_local.errors import BedrockError
from loam_bedrock_local.prompt import Json

_TOKENS_PER_DELTA = 3
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
class Reasoning:
    """What a model thought before it answered, signed by its provider."""

    text: str
    signature: str


Block = str | ToolUse | Reasoning


@dataclass(frozen=True, slots=True)
class Usage:
    """What is billed, in tokens. The cache figures are None for requests that do not use the cache."""

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None
    written_by_ttl: tuple[tuple[str, int], ...] = ()

    def without_output(self) -> "Usage":
        """What is owed before the first token comes out."""
        return replace(self, output=0)

    def render(self) -> Json:
        """The shape that Converse and its stream's last event carry."""
        cached: Json = {}
        if self.cache_read is not None and self.cache_write is not None:
            cached = {
                "cacheReadInputTokenCount": self.cache_read,
                "cacheReadInputTokens": self.cache_read,
                "cacheWriteInputTokenCount": self.cache_write,
                "cacheWriteInputTokens": self.cache_write,
            }
        if self.written_by_ttl:
            cached["cacheDetails"] = [{"inputTokens": written, "ttl": ttl} for ttl, written in self.written_by_ttl]
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

    blocks: tuple[Block, ...]
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


def events(completion: Completion) -> Iterator[tuple[bytes, int]]:
    """The answer of ConverseStream up to its messageStop, each event with the output tokens that it brings."""
    yield _event("messageStart", {"role": "assistant"}), 0
    for index, block in enumerate(completion.blocks):
        if isinstance(block, ToolUse):
            start = {"toolUse": {"name": block.name, "toolUseId": block.id}}
            yield _event("contentBlockStart", {"contentBlockIndex": index, "start": start}), tokens.count(block.name)
        for delta, output_tokens in _deltas(block):
            yield _event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}), output_tokens
        yield _event("contentBlockStop", {"contentBlockIndex": index}), 0
    yield _event("messageStop", {"stopReason": completion.stop_reason}), 0


def metadata_event(completion: Completion, latency_ms: int, extras: Json) -> bytes:
    """The last event of a stream, which brings the usage."""
    return _event("metadata", {"metrics": {"latencyMs": latency_ms}, **extras, "usage": completion.usage.render()})


def exception_event(error: BedrockError) -> bytes:
    """An error inside a stream; there its name begins with a small letter."""
    kind = error.name[0].lower() + error.name[1:]
    return eventstream.exception(kind, orjson.dumps({"message": error.message}))


def output_tokens(block: Block) -> int:
    """Tokens that a block is billed as; the deltas of its stream come to the same sum."""
    if isinstance(block, ToolUse):
        return tokens.count(block.name) + tokens.count(block.json)
    return tokens.count(block.text if isinstance(block, Reasoning) else block)


def _block(block: Block) -> Json:
    match block:
        case str():
            return {"text": block}
        case ToolUse():
            return {"toolUse": {"input": block.input, "name": block.name, "toolUseId": block.id}}
        case Reasoning():
            return {"reasoningContent": {"reasoningText": {"signature": block.signature, "text": block.text}}}


def _deltas(block: Block) -> Iterator[tuple[Json, int]]:
    """The deltas of a block with their output tokens."""
    match block:
        case str():
            yield from (({"text": piece}, tokens.count(piece)) for piece in _pieces(block))
        case ToolUse():
            yield from (({"toolUse": {"input": piece}}, tokens.count(piece)) for piece in _pieces(block.json))
        case Reasoning():
            for piece in _pieces(block.text):
                yield {"reasoningContent": {"text": piece}}, tokens.count(piece)
            yield {"reasoningContent": {"signature": block.signature}}, 0


def _pieces(text: str) -> list[str]:
    return tokens.pieces(text, _TOKENS_PER_DELTA)


def _event(kind: str, payload: Json) -> bytes:
    body = orjson.dumps(payload)
    padding = _PADDING[: len(body) * 7 % len(_PADDING)]
    return eventstream.event(kind, body[:-1] + b',"p":"' + padding.encode() + b'"}')
