"""A chat request on its way to OpenAI: nearly as it came."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loam_gateway.completions.bounds import FRAME_TOKENS, TOOLS_TOKENS, document_tokens
from loam_gateway.completions.media import IMAGES, inline
from loam_gateway.completions.request import EFFECTIVE, ChatRequest, FilePart, ImagePart, dropped_of

# OpenAI's own models take the new name of the limit, other servers often only the old one.
_OWN = re.compile(r"^(?:openai/)?(?:gpt-|chatgpt-|o\d)")
# Models that reason sample as they like.
_REASONING = re.compile(r"^(?:openai/)?(?:o\d|gpt-5(?!.*chat))")
_SAMPLING = frozenset({"temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias"})
_FILES = frozenset({"application/pdf", "text/plain", "text/markdown", "text/csv", "text/html"})
# What the gateway decides, and what is none of OpenAI's.
_KEPT_BACK = frozenset({"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "strict"})
_OURS = ("cache_control", "reasoning_details", "is_error")
# A small model counts a large image in many tiles: 2,833 tokens and 5,667 for each of at most 8.
_IMAGE_TOKENS = 48_169


@dataclass(frozen=True, slots=True)
class Passed:
    """A body but for the limit of its answer and for how it is streamed."""

    body: dict[str, Any]
    dropped: tuple[str, ...]


def to_openai(request: ChatRequest, *, model_id: str) -> Passed:
    """`request` for OpenAI. Raises InvalidRequestError for media that are not inline."""
    _check_media(request)
    dropped = dropped_of(request, _taken(model_id))
    body = request.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={*_KEPT_BACK, *dropped})
    for message in body["messages"]:
        _strip(message)
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            _strip(part)
    for tool in body.get("tools", ()):
        _strip(tool)
    return Passed({"model": model_id} | body, dropped)


def limit_name(model_id: str) -> str:
    """How the limit of an answer is called."""
    return "max_completion_tokens" if _OWN.match(model_id) else "max_tokens"


def _taken(model_id: str) -> frozenset[str]:
    return frozenset(EFFECTIVE) - _SAMPLING if _REASONING.match(model_id) else frozenset(EFFECTIVE)


def _strip(thing: dict[str, Any]) -> None:
    for name in _OURS:
        thing.pop(name, None)


def _check_media(request: ChatRequest) -> None:
    for index, message in enumerate(request.messages):
        parts = message.content if isinstance(message.content, list) else ()
        for place, part in enumerate(parts):
            where = f"messages.{index}.content.{place}"
            if isinstance(part, ImagePart):
                inline(part.image_url.url, IMAGES, where)
            elif isinstance(part, FilePart):
                inline(part.file.file_data, _FILES, where)


def input_tokens(body: dict[str, Any], encoded_bytes: int) -> int:
    """The most input tokens of `body`, which is `encoded_bytes` long as JSON."""
    bound = encoded_bytes + FRAME_TOKENS + (TOOLS_TOKENS if "tools" in body else 0)
    for part in _parts(body):
        if part["type"] == "image_url":
            bound += _IMAGE_TOKENS - len(part["image_url"]["url"])
        elif part["type"] == "file":
            length = len(part["file"]["file_data"])
            bound += document_tokens(length, plain=False) - length
    return bound


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for message in body["messages"]:
        if isinstance(message.get("content"), list):
            yield from message["content"]
