"""OpenAI's side of every answer: a whole completion, and the chunks of a streamed one."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from loam_gateway.ledger.model import Tokens
from loam_shared.money import format_usd

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


@dataclass(frozen=True, slots=True)
class Said:
    """A whole answer: OpenAI's message, why it ended, and what it used, where the provider says so."""

    message: dict[str, Any]
    finish: str
    usage: Usage | None


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

    def _reasoning(self, text: str) -> Chunk:
        self.output_bytes += len(text.encode())
        return self._chunk({"reasoning_content": text})

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
