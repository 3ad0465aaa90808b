"""Anthropic's Messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from loam_gateway.completions.anthropic.reply import AnthropicChunks, said
from loam_gateway.completions.anthropic.request import Messages, input_tokens, to_messages
from loam_gateway.completions.dialect import spliced
from loam_gateway.completions.reply import ChunkMaker, Heading, Said
from loam_gateway.completions.request import ChatRequest

__all__ = ["anthropic"]

_COUNTED = frozenset({"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"})


@dataclass(slots=True)
class AnthropicCall:
    """A ChatCall."""

    messages: Messages
    input_bound: int = field(init=False)
    _body: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._body = orjson.dumps(self.messages.body)
        self.input_bound = input_tokens(self.messages.body, len(self._body))

    @property
    def dropped(self) -> tuple[str, ...]:
        """See ChatCall."""
        return self.messages.dropped

    def encoded(self, max_tokens: int, metadata: Mapping[str, str], *, stream: bool) -> bytes:
        """See ChatCall. Of the metadata Anthropic takes an opaque user only, for which the key stands."""
        user = {"user_id": metadata.get("loam-key", "")}
        return spliced(self._body, {"max_tokens": max_tokens, "stream": stream, "metadata": user})

    def countable(self) -> bytes | None:
        """See ChatCall."""
        return orjson.dumps({name: value for name, value in self.messages.body.items() if name in _COUNTED})

    def said(self, reply: dict[str, Any]) -> Said:
        """See ChatCall."""
        return said(reply, json_answer=self.messages.json_answer)

    def chunk_maker(self, heading: Heading) -> ChunkMaker:
        """See ChatCall."""
        return AnthropicChunks(heading, json_answer=self.messages.json_answer)


def anthropic(request: ChatRequest, model_id: str) -> AnthropicCall:
    """The Dialect."""
    return AnthropicCall(to_messages(request, model_id=model_id))
