"""How many tokens a request brings, block by block, in the order in which models read them."""

from collections.abc import Iterator

import orjson

from loam_bedrock_local import tokens
from loam_bedrock_local.prompt import Json, document_text

_MEDIA_TOKENS = 1600


def input_tokens(body: Json) -> int:
    """Tokens of a whole request. Never more than the UTF-8 bytes of its texts, JSON and media."""
    return sum(map(block_tokens, blocks(body)))


def blocks(body: Json) -> Iterator[Json]:
    """Tools, then system, then messages."""
    yield from (body.get("toolConfig") or {}).get("tools") or ()
    yield from body.get("system") or ()
    for message in body.get("messages") or ():
        yield from message["content"]


def block_tokens(block: Json) -> int:
    """Tokens of one block. An image, a video or an unreadable document counts at most its bytes."""
    if "text" in block:
        return tokens.count(block["text"])
    if "toolResult" in block:
        return sum(map(block_tokens, block["toolResult"].get("content") or ()))
    if "cachePoint" in block:
        return 0
    if "document" in block:
        return tokens.count(document_text(block["document"])) or _media_tokens(block["document"])
    media = next((block[kind] for kind in ("image", "video", "audio") if kind in block), None)
    return tokens.count(orjson.dumps(block).decode()) if media is None else _media_tokens(media)


def _media_tokens(media: Json) -> int:
    encoded = (media.get("source") or {}).get("bytes") or ""
    return min(_MEDIA_TOKENS, len(encoded) * 3 // 4)
