"""From what Anthropic's Messages answer to OpenAI's words."""

from collections.abc import Iterable
from typing import Any

import orjson

from loam_gateway.completions.reply import (
    Chunk,
    ChunkMaker,
    Heading,
    Said,
    Usage,
    message_of,
    plausible,
    reasoning_encrypted,
    reasoning_text,
    tool_call,
)
from loam_gateway.completions.tools import ANSWER_TOOL
from loam_gateway.ledger.model import Tokens

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def usage_in(usage: Any) -> Usage | None:
    """What Anthropic says it used."""
    return plausible(_usage, usage)


def _usage(usage: dict[str, Any]) -> Usage:
    tokens = Tokens(
        input=usage.get("input_tokens") or 0,
        output=usage.get("output_tokens") or 0,
        cache_read=usage.get("cache_read_input_tokens") or 0,
        cache_write=usage.get("cache_creation_input_tokens") or 0,
    )
    return Usage(tokens, (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0)


def finish_reason(stop_reason: str | None, *, calls: bool) -> str:
    """OpenAI's word for why the answer ended; an answer through ANSWER_TOOL is no call."""
    reason = _FINISH.get(stop_reason or "", "stop")
    return "stop" if reason == "tool_calls" and not calls else reason


def said(reply: dict[str, Any], *, json_answer: bool) -> Said:
    """What `reply` says; with `json_answer` through the arguments of ANSWER_TOOL."""
    blocks = reply["content"]
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    uses = [block for block in blocks if block["type"] == "tool_use"]
    answers = [use for use in uses if json_answer and use["name"] == ANSWER_TOOL]
    if answers:
        texts = [orjson.dumps(answers[0]["input"]).decode()]
    calls = [tool_call(use["id"], use["name"], use["input"]) for use in uses if use not in answers]
    message = message_of(texts, calls, [detail for block in blocks for detail in _details(block)])
    return Said(message, finish_reason(reply.get("stop_reason"), calls=bool(calls)), usage_in(reply.get("usage")))


def _details(block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "thinking":
        return [reasoning_text(block["thinking"], block.get("signature"))]
    return [reasoning_encrypted(block["data"])] if block["type"] == "redacted_thinking" else []


class AnthropicChunks(ChunkMaker):
    """Chunks from the events of a streamed message."""

    def __init__(self, heading: Heading, *, json_answer: bool) -> None:
        super().__init__(heading)
        self._json_answer = json_answer
        self._calls: dict[int, int] = {}
        self._answer_blocks: set[int] = set()
        self._counted: dict[str, Any] = {}

    def chunks(self, event: str, payload: dict[str, Any]) -> Iterable[Chunk]:
        """See ChunkMaker."""
        if event == "content_block_delta":
            return self._delta(payload["index"], payload["delta"])
        if event == "content_block_start":
            return self._block_start(payload["index"], payload["content_block"])
        if event == "message_start":
            self._counted = payload["message"].get("usage") or {}
            return [self._begin()]
        if event == "message_delta":
            self._message_delta(payload)
        return []

    def _message_delta(self, payload: dict[str, Any]) -> None:
        if told := payload.get("usage"):
            # What is counted here is the whole of it; what is not was counted at the start.
            self.usage = usage_in(self._counted | {name: count for name, count in told.items() if count is not None})
        self._finish(finish_reason(payload["delta"].get("stop_reason"), calls=bool(self._calls)))

    def _block_start(self, index: int, block: dict[str, Any]) -> list[Chunk]:
        if block["type"] == "redacted_thinking":
            return [self._reasoning(index, reasoning_encrypted(block["data"]))]
        if block["type"] != "tool_use":
            return []
        if self._json_answer and block["name"] == ANSWER_TOOL:
            self._answer_blocks.add(index)
            return []
        self._calls[index] = len(self._calls)
        return [self._call(self._calls[index], block["id"], block["name"])]

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Chunk]:
        kind = delta["type"]
        if kind == "text_delta":
            return [self._text(delta["text"])]
        if kind == "input_json_delta":
            return self._partial_json(index, delta["partial_json"])
        if kind == "thinking_delta":
            return [self._reasoning(index, reasoning_text(delta["thinking"], None))]
        if kind == "signature_delta":
            return [self._reasoning(index, reasoning_text("", delta["signature"]))]
        return []

    def _partial_json(self, index: int, part: str) -> list[Chunk]:
        if index in self._answer_blocks:
            return [self._text(part)]
        return [self._arguments(self._calls[index], part)] if index in self._calls else []
