"""Bedrock's Converse and ConverseStream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from loam_gateway.completions.converse.bounds import input_tokens
from loam_gateway.completions.converse.reply import ConverseChunks, said
from loam_gateway.completions.converse.request import Converse, to_converse
from loam_gateway.completions.dialect import spliced
from loam_gateway.completions.reply import ChunkMaker, Heading, Said
from loam_gateway.completions.request import ChatRequest

__all__ = ["Converse", "ConverseCall", "converse", "to_converse"]

_COUNTED = frozenset({"messages", "system", "toolConfig", "additionalModelRequestFields"})


@dataclass(slots=True)
class ConverseCall:
    """A ChatCall."""

    converse: Converse
    input_bound: int = field(init=False)
    _body: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._body = orjson.dumps(self.converse.body)
        self.input_bound = input_tokens(self.converse.body, len(self._body))

    @property
    def dropped(self) -> tuple[str, ...]:
        """See ChatCall."""
        return self.converse.dropped

    def encoded(self, max_tokens: int, metadata: Mapping[str, str], *, stream: bool) -> bytes:
        """See ChatCall."""
        del stream  # The body is the same: Bedrock has an operation of its own for streams.
        inference = self.converse.inference | {"maxTokens": max_tokens}
        return spliced(self._body, {"inferenceConfig": inference, "requestMetadata": metadata})

    def countable(self) -> bytes | None:
        """See ChatCall."""
        body = {name: value for name, value in self.converse.body.items() if name in _COUNTED}
        return orjson.dumps({"input": {"converse": body}})

    def said(self, reply: dict[str, Any]) -> Said:
        """See ChatCall."""
        return said(reply, json_answer=self.converse.json_answer)

    def chunk_maker(self, heading: Heading) -> ChunkMaker:
        """See ChatCall."""
        return ConverseChunks(heading, json_answer=self.converse.json_answer)


def converse(request: ChatRequest, model_id: str) -> ConverseCall:
    """The Dialect."""
    return ConverseCall(to_converse(request, model_id=model_id))
