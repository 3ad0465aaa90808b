"""One Converse request from end to end: checked, answered, cut to its limits, and counted."""

import orjson

from loam_bedrock_local import tokens, validation
from loam_bedrock_local.answer import Answerer
from loam_bedrock_local.converse import Completion, Usage
from loam_bedrock_local.models import Model
from loam_bedrock_local.prompt import Json, Prompt, document_text

_MEDIA_TOKENS = 1600


class Engine:
    """Answers Converse requests; whether they are streamed is none of its business."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    def complete(self, model: Model, body: Json) -> Completion:
        """The answer to `body`.

        Raises:
            ValidationError: Bedrock would refuse it.
        """
        validation.check(model, body)
        prompt = Prompt(body)
        text = self._answerer.answer(prompt)
        return _limited(text, body.get("inferenceConfig") or {}, Usage(input_tokens(body), 0))


def _limited(text: str, config: Json, usage: Usage) -> Completion:
    stop_reason = "end_turn"
    ends = [(text.index(stop), stop) for stop in config.get("stopSequences") or () if stop and stop in text]
    if ends:
        text, stop_reason = text[: min(ends)[0]], "stop_sequence"
    limit = config.get("maxTokens")
    if limit is not None and len(cut := tokens.truncate(text, limit)) < len(text):
        text, stop_reason = cut, "max_tokens"
    return Completion((text,), stop_reason, Usage(usage.input, tokens.count(text)))


def input_tokens(body: Json) -> int:
    """Tokens of a whole request: system, messages and tools. Never more than the bytes of its texts and JSON."""
    blocks = [*(body.get("system") or ()), *(block for message in body["messages"] for block in message["content"])]
    tools = (body.get("toolConfig") or {}).get("tools") or ()
    return sum(map(block_tokens, blocks)) + sum(tokens.count(orjson.dumps(tool).decode()) for tool in tools)


def block_tokens(block: Json) -> int:
    """Tokens of one content block. An image, a video or an unreadable document counts at most its bytes."""
    if "text" in block:
        return tokens.count(block["text"])
    if "toolResult" in block:
        return sum(map(block_tokens, block["toolResult"].get("content", ())))
    if "document" in block:
        return tokens.count(document_text(block["document"])) or _media_tokens(block["document"])
    media = next((block[kind] for kind in ("image", "video", "audio") if kind in block), None)
    return tokens.count(orjson.dumps(block).decode()) if media is None else _media_tokens(media)


def _media_tokens(media: Json) -> int:
    encoded = (media.get("source") or {}).get("bytes", "")
    return min(_MEDIA_TOKENS, len(encoded) * 3 // 4)
