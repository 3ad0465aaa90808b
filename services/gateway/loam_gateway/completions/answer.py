"""From what Converse answers to a chat completion."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

import orjson

from loam_gateway.completions.converse import ANSWER_TOOL
from loam_gateway.ledger.model import Tokens
from loam_shared.money import format_usd

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


@dataclass(frozen=True, slots=True)
class Heading:
    """What every chunk and every answer begins with. `model` is the name that the caller used."""

    id: str
    created: int
    model: str

    @classmethod
    def new(cls, model: str) -> "Heading":
        """A heading for an answer that begins now."""
        return cls(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), model)


def tokens_of(usage: dict[str, Any]) -> Tokens:
    """What Converse says it used."""
    return Tokens(
        input=usage.get("inputTokens", 0),
        output=usage.get("outputTokens", 0),
        cache_read=usage.get("cacheReadInputTokens", 0),
        cache_write=usage.get("cacheWriteInputTokens", 0),
    )


def usage_of(tokens: Tokens, cost_nanos: int) -> dict[str, Any]:
    """The `usage` object of OpenAI, and what it cost."""
    prompt = tokens.input + tokens.cache_read + tokens.cache_write
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens.output,
        "total_tokens": prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read},
        "cost_usd": format_usd(cost_nanos),
    }


def finish_reason(stop_reason: str, *, calls: bool) -> str:
    """OpenAI's word for why the answer ended; an answer through ANSWER_TOOL is no call."""
    reason = _FINISH.get(stop_reason, "stop")
    return "stop" if reason == "tool_calls" and not calls else reason


def completion(heading: Heading, reply: dict[str, Any], *, json_answer: bool, usage: dict[str, Any]) -> dict[str, Any]:
    """A chat completion from Converse's `reply`."""
    message = _message(reply["output"]["message"]["content"], json_answer=json_answer)
    finish = finish_reason(reply["stopReason"], calls="tool_calls" in message)
    return {
        "id": heading.id,
        "object": "chat.completion",
        "created": heading.created,
        "model": heading.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": usage,
    }


def _message(blocks: list[dict[str, Any]], *, json_answer: bool) -> dict[str, Any]:
    texts = [block["text"] for block in blocks if "text" in block]
    uses = [block["toolUse"] for block in blocks if "toolUse" in block]
    answers = [use for use in uses if json_answer and use["name"] == ANSWER_TOOL]
    if answers:
        texts = [orjson.dumps(answers[0]["input"]).decode()]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None, "refusal": None}
    if calls := [_tool_call(use) for use in uses if use not in answers]:
        message["tool_calls"] = calls
    if reasoning := "".join(_reasoning(block) for block in blocks):
        message["reasoning_content"] = reasoning
    return message


def _tool_call(use: dict[str, Any]) -> dict[str, Any]:
    arguments = orjson.dumps(use["input"]).decode()
    return {"id": use["toolUseId"], "type": "function", "function": {"name": use["name"], "arguments": arguments}}


def _reasoning(block: dict[str, Any]) -> str:
    text: str = block.get("reasoningContent", {}).get("reasoningText", {}).get("text", "")
    return text
