"""Conversations as Converse and Anthropic want them: turns that alternate, made of typed blocks."""

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from loam_gateway.completions.request import (
    AssistantMessage,
    Message,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCall,
)
from loam_shared.errors import InvalidRequestError

Block = dict[str, Any]


def turns(messages: list[Message], blocks_of: Callable[[Message, str], list[Block]]) -> list[dict[str, Any]]:
    """Neighbours of one role as one turn, and results within the user's. Raises InvalidRequestError for empty ones."""
    made: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if isinstance(message, SystemMessage):
            continue
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        blocks = blocks_of(message, f"messages.{index}")
        if all("text" in block and not block["text"].strip() for block in blocks):
            where = f"messages.{index}.content"
            raise InvalidRequestError(f"{where}: the message is empty", param=where)
        if made and made[-1]["role"] == role:
            made[-1]["content"].extend(blocks)
        else:
            made.append({"role": role, "content": blocks})
    if not made:
        raise InvalidRequestError("messages: give a message that is no instruction", param="messages")
    return made


def system_parts(messages: Iterable[Message]) -> Iterable[tuple[str, bool]]:
    """The texts of the instructions, none empty, and whether a prefix to be cached ends after each."""
    for message in messages:
        if isinstance(message, SystemMessage):
            yield from text_parts(message.content, cached=message.cache_control is not None)


def text_parts(content: str | list[TextPart], *, cached: bool) -> Iterable[tuple[str, bool]]:
    """As for `system_parts`; `cached` says that the last one ends a prefix."""
    parts = [(content, False)] if isinstance(content, str) else [(p.text, p.cache_control is not None) for p in content]
    parts = [part for part in parts if part[0].strip()]
    if parts and cached:
        parts[-1] = (parts[-1][0], True)
    return parts


def said_parts(message: AssistantMessage) -> Iterable[tuple[str, bool]]:
    """What the assistant said, refusals too."""
    content = message.content if message.content is not None else message.refusal or ""
    if isinstance(content, str):
        return text_parts(content, cached=False)
    return text_parts([_as_text(part) for part in content], cached=False)


def _as_text(part: TextPart | RefusalPart) -> TextPart:
    return part if isinstance(part, TextPart) else TextPart(type="text", text=part.refusal)


def arguments_of(call: ToolCall, where: str) -> Any:
    """The arguments of a call as JSON. Raises InvalidRequestError."""
    try:
        return orjson.loads(call.function.arguments or "{}")
    except orjson.JSONDecodeError as error:
        where = f"{where}.function.arguments"
        raise InvalidRequestError(f"{where}: must be JSON, {error}", param=where) from error
