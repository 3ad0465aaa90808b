"""How much a call may use at most, known before it is made. Pure.

A token is at least one byte of UTF-8, so the bytes of the body that goes to the provider bound its input tokens; what
is not text has a bound of its own. The bound is generous on purpose: what is not used is given back at the settlement.
"""

from typing import Any

import orjson

# A model's own words around tools (Anthropic's are 530 tokens at most) and around a conversation.
_FRAME_TOKENS = 64
_TOOLS_TOKENS = 1_024
# The most that the largest image becomes, after the provider has scaled it down.
_IMAGE_TOKENS = 5_000
# A PDF has at most 100 pages, each seen as text and as an image.
_PAGED_DOCUMENT_TOKENS = 600_000
_PLAIN_DOCUMENTS = frozenset({"txt", "md", "csv", "html"})

CUT_ALLOWANCE_TOKENS = 256
"""Output that may have been generated, and billed, between the last piece seen and the end of a call that was cut."""

DEFAULT_OUTPUT_TOKENS = 4_096
USEFUL_OUTPUT_TOKENS = 64
"""A budget that covers fewer than these (or than what was asked for) is refused rather than clamped to them."""


def input_tokens(body: dict[str, Any]) -> int:
    """The most input tokens that a Converse body can be."""
    media = sum(_media_tokens(block) for turn in body["messages"] for block in turn["content"])
    tools = _TOOLS_TOKENS if "toolConfig" in body else 0
    return _text_bytes(body) + media + tools + _FRAME_TOKENS


def output_tokens(asked: int | None, ceiling: int | None) -> int:
    """The most output tokens of a call: what was asked for, within what the model can."""
    limits = [limit for limit in (asked, ceiling) if limit is not None]
    return min(limits, default=DEFAULT_OUTPUT_TOKENS)


def estimate_tokens(input_bound: int) -> int:
    """About how many tokens an input will be, for rate limits: English has four bytes a token."""
    return -(-input_bound // 4)


def _text_bytes(body: dict[str, Any]) -> int:
    encoded = len(orjson.dumps(body))
    return encoded - sum(len(_data(block)) for turn in body["messages"] for block in turn["content"])


def _data(block: dict[str, Any]) -> str:
    media = block.get("image") or block.get("document")
    data: str = media["source"]["bytes"] if media else ""
    return data


def _media_tokens(block: dict[str, Any]) -> int:
    if "image" in block:
        return _IMAGE_TOKENS
    if "document" not in block:
        return 0
    decoded_bytes = len(_data(block)) * 3 // 4
    plain = block["document"]["format"] in _PLAIN_DOCUMENTS
    return decoded_bytes if plain else max(decoded_bytes, _PAGED_DOCUMENT_TOKENS)
