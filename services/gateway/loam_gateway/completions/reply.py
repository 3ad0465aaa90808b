"""OpenAI's side of every answer: a whole completion, and the chunks of a streamed one."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from loam_gateway.ledger.model import Tokens
from loam_shared.money import format_usd

# More than any model takes or gives. A price of it in nano-dollars still fits where the ledger keeps it.
_MOST_TOKENS = 10**9

Chunk = dict[str, Any]
"""One chunk of a streamed chat completion, as OpenAI shapes it."""


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


@dataclass(frozen=True, slots=True)
class Usage:
    """What the provider says it used. `reasoning` tokens are among the output's."""

    tokens: Tokens
    reasoning: int = 0


def plausible(read: Callable[[dict[str, Any]], Usage], told: Any) -> Usage | None:
    """What `read` finds in the provider's words; None where it says nothing, or what no model can have used.

    A negative number would give money back, and one without bounds would take all that there is.
    """
    if not told:
        return None
    try:
        usage = read(told)
    except (TypeError, AttributeError):
        return None
    tokens = usage.tokens
    counts = (tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, usage.reasoning)
    return usage if all(map(is_count, counts)) else None


def is_count(value: object) -> bool:
    """Whether a provider can mean `value` as a number of tokens."""
    return isinstance(value, int) and 0 <= value <= _MOST_TOKENS


@dataclass(frozen=True, slots=True)
class Said:
    """A whole answer: OpenAI's message, why it ended, and what it used, where the provider says so."""

    message: dict[str, Any]
    finish: str
    usage: Usage | None


def reasoning_text(text: str, signature: str | None) -> dict[str, Any]:
    """A piece of reasoning, as OpenRouter shapes it; given back with its signature, a model takes it up again."""
    detail: dict[str, Any] = {"type": "reasoning.text", "text": text}
    return detail | ({"signature": signature} if signature else {})


def reasoning_encrypted(data: str) -> dict[str, Any]:
    """Reasoning that only the model can read."""
    return {"type": "reasoning.encrypted", "data": data}


def message_of(
    texts: list[str], calls: list[dict[str, Any]], reasoning: list[dict[str, Any]], refusal: str | None = None
) -> dict[str, Any]:
    """OpenAI's message of an assistant. `reasoning` are details, whose texts are given as `reasoning_content` too."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None, "refusal": refusal}
    if calls:
        message["tool_calls"] = calls
    if reasoning:
        message["reasoning_content"] = "".join(detail.get("text", "") for detail in reasoning)
        message["reasoning_details"] = reasoning
    return message


def tool_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """A call of a function, as OpenAI shapes it."""
    function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
    return {"id": call_id, "type": "function", "function": function}


def usage_of(usage: Usage, cost_nanos: int) -> dict[str, Any]:
    """The `usage` object of OpenAI, and what it cost."""
    tokens = usage.tokens
    prompt = tokens.input + tokens.cache_read + tokens.cache_write
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens.output,
        "total_tokens": prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
        "cost_usd": format_usd(cost_nanos),
    }


def completion(heading: Heading, said: Said, usage: dict[str, Any]) -> dict[str, Any]:
    """A chat completion."""
    return {
        "id": heading.id,
        "object": "chat.completion",
        "created": heading.created,
        "model": heading.model,
        "choices": [{"index": 0, "message": said.message, "finish_reason": said.finish, "logprobs": None}],
        "usage": usage,
    }


class ChunkMaker(ABC):
    """Turns a provider's events into chunks one by one, and remembers what the settlement needs.

    `usage` is None until the provider has said what it used; `output_bytes` is the output seen up to now, which
    bounds its tokens. `last` is what is to be sent at the very end, once the provider's answer came to its end.
    """

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.last: list[Chunk] = []

    @abstractmethod
    def chunks(self, event: str, payload: dict[str, Any]) -> Iterable[Chunk]:
        """The chunks that one event becomes; most become one, some none."""

    def usage_chunk(self, usage: dict[str, Any]) -> Chunk:
        """The last chunk of a stream, which has no choices."""
        return self._frame([]) | {"usage": usage}

    def _begin(self) -> Chunk:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _text(self, text: str) -> Chunk:
        self.output_bytes += len(text.encode())
        return self._chunk({"content": text})

    def _reasoning(self, position: int, detail: dict[str, Any]) -> Chunk:
        """A piece of the reasoning; pieces of one `position` belong together."""
        text = detail.get("text", "")
        self.output_bytes += len(text.encode()) + len(detail.get("data", ""))
        delta: dict[str, Any] = {"reasoning_details": [detail | {"index": position}]}
        return self._chunk({"reasoning_content": text} | delta if text else delta)

    def _call(self, position: int, call_id: str, name: str) -> Chunk:
        self.output_bytes += len(name.encode())
        function = {"name": name, "arguments": ""}
        return self._call_chunk(position, {"id": call_id, "type": "function", "function": function})

    def _arguments(self, position: int, part: str) -> Chunk:
        self.output_bytes += len(part.encode())
        return self._call_chunk(position, {"function": {"arguments": part}})

    def _finish(self, reason: str) -> None:
        self.last = [self._chunk({}, reason)]

    def _call_chunk(self, position: int, call: dict[str, Any]) -> Chunk:
        return self._chunk({"tool_calls": [{"index": position} | call]})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> Chunk:
        return self._frame([{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}])

    def _frame(self, choices: list[dict[str, Any]]) -> Chunk:
        return {
            "id": self._heading.id,
            "object": "chat.completion.chunk",
            "created": self._heading.created,
            "model": self._heading.model,
            "choices": choices,
        }
