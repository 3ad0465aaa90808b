"""From what Converse and ConverseStream answer to OpenAI's words."""

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
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


def usage_in(usage: Any) -> Usage | None:
    """What Converse says it used."""
    return plausible(_usage, usage)


def _usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        Tokens(
            input=usage.get("inputTokens", 0),
            output=usage.get("outputTokens", 0),
            cache_read=usage.get("cacheReadInputTokens", 0),
            cache_write=usage.get("cacheWriteInputTokens", 0),
        )
    )


def finish_reason(stop_reason: str, *, calls: bool) -> str:
    """OpenAI's word for why the answer ended; an answer through ANSWER_TOOL is no call."""
    reason = _FINISH.get(stop_reason, "stop")
    return "stop" if reason == "tool_calls" and not calls else reason


def said(reply: dict[str, Any], *, json_answer: bool) -> Said:
    """What Converse's `reply` says; with `json_answer` through the arguments of ANSWER_TOOL."""
    message = _message(reply["output"]["message"]["content"], json_answer=json_answer)
    finish = finish_reason(reply["stopReason"], calls="tool_calls" in message)
    return Said(message, finish, usage_in(reply.get("usage")))


def _message(blocks: list[dict[str, Any]], *, json_answer: bool) -> dict[str, Any]:
    texts = [block["text"] for block in blocks if "text" in block]
    # The calls that Bedrock itself has made and answered are none of the caller's.
    done = {block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block}
    uses = [block["toolUse"] for block in blocks if "toolUse" in block and block["toolUse"]["toolUseId"] not in done]
    answers = [use for use in uses if json_answer and use["name"] == ANSWER_TOOL]
    if answers:
        texts = [orjson.dumps(answers[0]["input"]).decode()]
    calls = [tool_call(use["toolUseId"], use["name"], use["input"]) for use in uses if use not in answers]
    return message_of(texts, calls, [_detail(block) for block in blocks if "reasoningContent" in block])


def _detail(block: dict[str, Any]) -> dict[str, Any]:
    reasoning = block["reasoningContent"]
    if "redactedContent" in reasoning:
        return reasoning_encrypted(reasoning["redactedContent"])
    told = reasoning["reasoningText"]
    return reasoning_text(told["text"], told.get("signature"))


class ConverseChunks(ChunkMaker):
    """Chunks from the events of ConverseStream."""

    def __init__(self, heading: Heading, *, json_answer: bool) -> None:
        super().__init__(heading)
        self._json_answer = json_answer
        self._calls: dict[int, int] = {}
        self._answer_blocks: set[int] = set()

    def chunks(self, event: str, payload: dict[str, Any]) -> Iterable[Chunk]:
        """See ChunkMaker."""
        if event == "contentBlockDelta":
            return self._delta(payload["contentBlockIndex"], payload["delta"])
        if event == "contentBlockStart":
            return self._block_start(payload["contentBlockIndex"], payload["start"])
        if event == "messageStart":
            return [self._begin()]
        if event == "messageStop":
            self._finish(finish_reason(payload["stopReason"], calls=bool(self._calls)))
        elif event == "metadata":
            self.usage = usage_in(payload.get("usage"))
        return []

    def _block_start(self, index: int, start: dict[str, Any]) -> list[Chunk]:
        use = start.get("toolUse")
        # What Bedrock itself calls and answers is none of the caller's calls.
        if use is None or use.get("type") == "server_tool_use":
            return []
        if self._json_answer and use["name"] == ANSWER_TOOL:
            self._answer_blocks.add(index)
            return []
        self._calls[index] = len(self._calls)
        return [self._call(self._calls[index], use["toolUseId"], use["name"])]

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Chunk]:
        if "text" in delta:
            return [self._text(delta["text"])]
        if "toolUse" in delta:
            return self._input(index, delta["toolUse"].get("input", ""))
        if "reasoningContent" in delta:
            return [self._reasoning(index, _piece(delta["reasoningContent"]))]
        return []

    def _input(self, index: int, part: str) -> list[Chunk]:
        if index in self._answer_blocks:
            return [self._text(part)]
        return [self._arguments(self._calls[index], part)] if index in self._calls else []


def _piece(delta: dict[str, Any]) -> dict[str, Any]:
    if "redactedContent" in delta:
        return reasoning_encrypted(delta["redactedContent"])
    return reasoning_text(delta.get("text", ""), delta.get("signature"))
