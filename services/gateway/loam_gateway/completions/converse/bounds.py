"""The most input tokens that a Converse body can be."""

from collections.abc import Iterable, Iterator
from typing import Any

from loam_gateway.completions.bounds import FRAME_TOKENS, IMAGE_TOKENS, TOOLS_TOKENS, document_tokens

_PLAIN_DOCUMENTS = frozenset({"txt", "md", "csv", "html"})


def input_tokens(body: dict[str, Any], encoded_bytes: int) -> int:
    """The most input tokens of `body`, which is `encoded_bytes` long as JSON."""
    bound = encoded_bytes + FRAME_TOKENS + (TOOLS_TOKENS if "toolConfig" in body else 0)
    for turn in body["messages"]:
        for block in _with_results(turn["content"]):
            if media := block.get("image") or block.get("document"):
                data = media["source"]["bytes"]
                bound += _media_tokens(block, len(data)) - len(data)
    return bound


def _with_results(blocks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        if "toolResult" in block:
            yield from block["toolResult"]["content"]
        else:
            yield block


def _media_tokens(block: dict[str, Any], base64_length: int) -> int:
    if "image" in block:
        return IMAGE_TOKENS
    return document_tokens(base64_length, plain=block["document"]["format"] in _PLAIN_DOCUMENTS)
