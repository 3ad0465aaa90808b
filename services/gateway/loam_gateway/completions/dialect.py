"""What a provider family has to say about a chat, so that the metering needs to know none of them.

A dialect is a function from OpenAI's request to a `ChatCall`. Everything here is pure.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from loam_gateway.completions.reply import ChunkMaker, Heading, Said
from loam_gateway.completions.request import ChatRequest


class ChatCall(Protocol):
    """A chat request as a provider takes it, but for the length of its answer, which the ledger decides."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """The caller's parameters that this model does not take."""

    @property
    def input_bound(self) -> int:
        """The most input tokens that it can be."""

    def encoded(self, max_tokens: int, metadata: Mapping[str, str], *, stream: bool) -> bytes:
        """The provider's body for an answer of at most `max_tokens`. `metadata` is for the provider's own logs."""

    def countable(self) -> bytes | None:
        """What the provider takes to count the input's tokens; None where it does not count."""

    def said(self, reply: dict[str, Any]) -> Said:
        """What the provider's whole answer says."""

    def chunk_maker(self, heading: Heading) -> ChunkMaker:
        """What turns the events of a streamed answer into chunks."""


Dialect = Callable[[ChatRequest, str], ChatCall]
"""From a request and the provider's id of the model. Raises InvalidRequestError for what cannot be carried over."""


def spliced(body: bytes, more: dict[str, Any]) -> bytes:
    """The JSON object `body` with more members, without encoding what is there once again."""
    return body[:-1] + b"," + orjson.dumps(more)[1:]
