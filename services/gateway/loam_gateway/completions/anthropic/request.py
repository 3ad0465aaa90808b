"""From a chat request to the body of Anthropic's Messages."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loam_gateway.completions import abilities
from loam_gateway.completions.bounds import FRAME_TOKENS, IMAGE_TOKENS, TOOLS_TOKENS, document_tokens
from loam_gateway.completions.media import IMAGES, inline
from loam_gateway.completions.request import (
    AssistantMessage,
    ChatRequest,
    FileData,
    FilePart,
    ImagePart,
    Message,
    ReasoningDetail,
    SystemMessage,
    ToolMessage,
    UserPart,
    dropped_of,
)
from loam_gateway.completions.tools import ANY, Offer, Plan, plan
from loam_gateway.completions.turns import (
    Block,
    arguments_of,
    said_parts,
    system_parts,
    turns,
)
from loam_shared.errors import InvalidRequestError

_PDF = "application/pdf"
_DOCUMENTS = frozenset({_PDF, "text/plain", "text/markdown", "text/csv", "text/html"})
_CACHED: Block = {"cache_control": {"type": "ephemeral"}}


@dataclass(frozen=True, slots=True)
class Messages:
    """A body but for `max_tokens`, `stream` and `metadata`; `dropped` and `json_answer` as for Converse."""

    body: dict[str, Any]
    dropped: tuple[str, ...]
    json_answer: bool


def to_messages(request: ChatRequest, *, model_id: str) -> Messages:
    """`request` as Anthropic wants it. Raises InvalidRequestError that names the message it cannot carry over."""
    tools = plan(request, takes_schemas=abilities.takes_schemas(model_id))
    effort = abilities.effort(request, model_id, forced=tools.must is not None)
    sampling = abilities.sampling(request, model_id, thinking=bool(effort))
    body: dict[str, Any] = {"model": model_id, "messages": turns(request.messages, _blocks), **sampling}
    if system := [_text(text, cached=cached) for text, cached in system_parts(request.messages)]:
        body["system"] = system
    if request.stop_sequences:
        body["stop_sequences"] = request.stop_sequences
    if tools.offers:
        body |= {"tools": [_tool(offer) for offer in tools.offers], "tool_choice": _choice(tools, request)}
    if effort:
        body |= abilities.adaptive_thinking(effort)
    if tools.schema is not None:
        output_format = {"type": "json_schema", "schema": tools.schema.schema_}
        body["output_config"] = body.get("output_config", {}) | {"format": output_format}
    taken = (*sampling, "parallel_tool_calls", *(("reasoning_effort",) if effort else ()))
    return Messages(body, dropped_of(request, taken) + tools.dropped, tools.json_answer)


def _blocks(message: Message, where: str) -> list[Block]:
    assert not isinstance(message, SystemMessage)
    if isinstance(message, ToolMessage):
        blocks = [_tool_result(message, where)]
    elif isinstance(message, AssistantMessage):
        blocks = _assistant_blocks(message, where)
    else:
        blocks = _asked(message.content, where)
    if blocks and message.cache_control:
        blocks[-1] |= _CACHED
    return blocks


def _asked(content: str | list[UserPart], where: str) -> list[Block]:
    if isinstance(content, str):
        return [_text(content, cached=False)] if content.strip() else []
    return _parts(content, where)


def _parts(parts: list[UserPart], where: str) -> list[Block]:
    blocks: list[Block] = []
    for index, part in enumerate(parts):
        if block := _part(part, f"{where}.content.{index}"):
            blocks.append(block)
        if blocks and part.cache_control:
            blocks[-1] |= _CACHED
    return blocks


def _part(part: UserPart, where: str) -> Block | None:
    if isinstance(part, ImagePart):
        media_type, data = inline(part.image_url.url, IMAGES, where)
        media_type = f"image/{IMAGES[media_type]}"
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
    if isinstance(part, FilePart):
        return _document(part.file, where)
    # Anthropic refuses texts of white space alone.
    return {"type": "text", "text": part.text} if part.text.strip() else None


def _document(file: FileData, where: str) -> Block:
    media_type, data = inline(file.file_data, _DOCUMENTS, where)
    if media_type == _PDF:
        source = {"type": "base64", "media_type": media_type, "data": data}
    else:
        source = {"type": "text", "media_type": "text/plain", "data": _decoded(data, where)}
    return {"type": "document", "title": file.filename[:500], "source": source}


def _decoded(data: str, where: str) -> str:
    try:
        return base64.b64decode(data).decode()
    except ValueError as error:
        raise InvalidRequestError(f"{where}: the document is no text in UTF-8", param=where) from error


def _tool_result(message: ToolMessage, where: str) -> Block:
    content = _asked(message.content, where)
    result: Block = {"type": "tool_result", "tool_use_id": _tool_use_id(message.tool_call_id), "content": content}
    return result | ({"is_error": True} if message.is_error else {})


def _assistant_blocks(message: AssistantMessage, where: str) -> list[Block]:
    blocks = [_reasoning(detail) for detail in message.kept_reasoning]
    blocks += [_text(text, cached=cached) for text, cached in said_parts(message)]
    for index, call in enumerate(message.tool_calls or ()):
        arguments = arguments_of(call, f"{where}.tool_calls.{index}")
        blocks.append({"type": "tool_use", "id": _tool_use_id(call.id), "name": call.function.name, "input": arguments})
    return blocks


def _reasoning(detail: ReasoningDetail) -> Block:
    if detail.type == "reasoning.encrypted":
        return {"type": "redacted_thinking", "data": detail.data}
    return {"type": "thinking", "thinking": detail.text, "signature": detail.signature}


def _text(text: str, *, cached: bool) -> Block:
    return {"type": "text", "text": text} | (_CACHED if cached else {})


def _tool(offer: Offer) -> Block:
    tool: Block = {"name": offer.name, "input_schema": {"type": "object"} | offer.schema}
    if offer.description:
        tool["description"] = offer.description
    if offer.strict:
        tool["strict"] = True
    return tool | (_CACHED if offer.cached else {})


def _choice(tools: Plan, request: ChatRequest) -> Block:
    if tools.must is None:
        choice: Block = {"type": "auto"}
    else:
        choice = {"type": "any"} if tools.must == ANY else {"type": "tool", "name": tools.must}
    return choice | ({"disable_parallel_tool_use": True} if request.parallel_tool_calls is False else {})


def _tool_use_id(given: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", given)


def input_tokens(body: dict[str, Any], encoded_bytes: int) -> int:
    """The most input tokens of `body`, which is `encoded_bytes` long as JSON."""
    bound = encoded_bytes + FRAME_TOKENS + (TOOLS_TOKENS if "tools" in body else 0)
    for block in _all_blocks(body):
        source = block.get("source", {})
        if source.get("type") == "base64":
            length = len(source["data"])
            bound += (IMAGE_TOKENS if block["type"] == "image" else document_tokens(length, plain=False)) - length
    return bound


def _all_blocks(body: dict[str, Any]) -> Iterator[Block]:
    for turn in body["messages"]:
        for block in turn["content"]:
            yield block
            if block["type"] == "tool_result":
                yield from block["content"]
