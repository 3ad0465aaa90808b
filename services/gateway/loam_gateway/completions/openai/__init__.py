"""OpenAI's own Chat Completions, as many other servers speak them too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from loam_gateway.completions.dialect import spliced
from loam_gateway.completions.openai.reply import OpenAIChunks, said
from loam_gateway.completions.openai.request import Passed, input_tokens, limit_name, to_openai
from loam_gateway.completions.reply import ChunkMaker, Heading, Said
from loam_gateway.completions.request import ChatRequest

__all__ = ["openai"]


@dataclass(slots=True)
class OpenAICall:
    """A ChatCall."""

    passed: Passed
    input_bound: int = field(init=False)
    _body: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._body = orjson.dumps(self.passed.body)
        self.input_bound = input_tokens(self.passed.body, len(self._body))

    @property
    def dropped(self) -> tuple[str, ...]:
        """See ChatCall."""
        return self.passed.dropped

    def encoded(self, max_tokens: int, metadata: Mapping[str, str], *, stream: bool) -> bytes:
        """See ChatCall. Metadata is only for answers that OpenAI stores, so it stays here."""
        del metadata
        more: dict[str, Any] = {limit_name(self.passed.body["model"]): max_tokens}
        if stream:
            more |= {"stream": True, "stream_options": {"include_usage": True}}
        return spliced(self._body, more)

    def countable(self) -> bytes | None:
        """See ChatCall: OpenAI does not count beforehand."""
        return None

    def said(self, reply: dict[str, Any]) -> Said:
        """See ChatCall."""
        return said(reply)

    def chunk_maker(self, heading: Heading) -> ChunkMaker:
        """See ChatCall."""
        return OpenAIChunks(heading)


def openai(request: ChatRequest, model_id: str) -> OpenAICall:
    """The Dialect."""
    return OpenAICall(to_openai(request, model_id=model_id))
