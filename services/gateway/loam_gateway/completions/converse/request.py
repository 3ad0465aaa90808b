"""From a chat request to the body of Converse and ConverseStream."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from loam_gateway.completions import abilities
from loam_gateway.completions.media import IMAGES, inline
from loam_gateway.completions.request import (
    AssistantMessage,
    ChatRequest,
    FileData,
    FilePart,
    ImagePart,
    JsonSchema,
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

_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_CACHE_POINT: Block = {"cachePoint": {"type": "default"}}


@dataclass(frozen=True, slots=True)
class Converse:
    """A Converse body but for its `inferenceConfig`, which is `inference` with the `maxTokens` of the ledger.

    `dropped` are the caller's parameters that this model does not take. `json_answer` says that the answer comes as
    the arguments of ANSWER_TOOL.
    """

    body: dict[str, Any]
    inference: dict[str, Any]
    dropped: tuple[str, ...]
    json_answer: bool


def to_converse(request: ChatRequest, *, model_id: str) -> Converse:
    """`request` as Converse wants it. Raises InvalidRequestError that names the message it cannot carry over."""
    tools = plan(request, takes_schemas=abilities.takes_schemas(model_id))
    effort = abilities.effort(request, model_id, forced=tools.must is not None)
    sampling = abilities.sampling(request, model_id, thinking=bool(effort) and abilities.thinks_adaptively(model_id))
    body: dict[str, Any] = {"messages": turns(request.messages, _Blocks())}
    if system := list(_system(request.messages)):
        body["system"] = system
    if tools.offers:
        body["toolConfig"] = _tool_config(tools)
    if tools.schema is not None:
        body["outputConfig"] = {"textFormat": _text_format(tools.schema)}
    if effort:
        body["additionalModelRequestFields"] = _effort_fields(effort, model_id)
    dropped = dropped_of(request, (*sampling, *(("reasoning_effort",) if effort else ())))
    return Converse(body, _inference(request, sampling), dropped + tools.dropped, tools.json_answer)


def _inference(request: ChatRequest, sampling: dict[str, float]) -> dict[str, Any]:
    names = {"temperature": "temperature", "top_p": "topP"}
    config: dict[str, Any] = {names[name]: value for name, value in sampling.items()}
    if request.stop_sequences:
        config["stopSequences"] = request.stop_sequences
    return config


def _effort_fields(effort: str, model_id: str) -> dict[str, Any]:
    field = abilities.effort_field(model_id)
    return {field: effort} if field else abilities.adaptive_thinking(effort)


def _text_format(schema: JsonSchema) -> dict[str, Any]:
    told = {"name": schema.name, "schema": orjson.dumps(schema.schema_).decode()}
    if schema.description:
        told["description"] = schema.description
    return {"type": "json_schema", "structure": {"jsonSchema": told}}


def _system(messages: Iterable[Message]) -> Iterable[Block]:
    for text, cached in system_parts(messages):
        yield {"text": text}
        if cached:
            yield _CACHE_POINT


class _Blocks:
    """The blocks of one message after the other. Bedrock refuses two documents of one name, so it remembers them."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def __call__(self, message: Message, where: str) -> list[Block]:
        assert not isinstance(message, SystemMessage)
        if isinstance(message, ToolMessage):
            blocks = [self._tool_result(message, where)]
        elif isinstance(message, AssistantMessage):
            blocks = _assistant_blocks(message, where)
        else:
            blocks = self._asked(message.content, where)
        return [*blocks, _CACHE_POINT] if blocks and message.cache_control else blocks

    def _asked(self, content: str | list[UserPart], where: str) -> list[Block]:
        return [{"text": content}] if isinstance(content, str) else self._parts(content, where)

    def _parts(self, parts: list[UserPart], where: str) -> list[Block]:
        blocks = []
        for index, part in enumerate(parts):
            if block := self._part(part, f"{where}.content.{index}"):
                blocks.append(block)
            if blocks and part.cache_control:
                blocks.append(_CACHE_POINT)
        return blocks

    def _part(self, part: UserPart, where: str) -> Block | None:
        if isinstance(part, ImagePart):
            media_type, data = inline(part.image_url.url, IMAGES, where)
            return {"image": {"format": IMAGES[media_type], "source": {"bytes": data}}}
        if isinstance(part, FilePart):
            return self._document(part.file, where)
        return {"text": part.text} if part.text else None

    def _document(self, file: FileData, where: str) -> Block:
        media_type, data = inline(file.file_data, _DOCUMENTS, where)
        # Bedrock allows these characters only.
        name = re.sub(r"\s+", " ", re.sub(r"[^A-Za-z0-9\s()\[\]-]", " ", file.filename)).strip()[:190] or "document"
        unique = name if name not in self._names else f"{name} {len(self._names) + 1}"
        self._names.add(unique)
        return {"document": {"format": _DOCUMENTS[media_type], "name": unique, "source": {"bytes": data}}}

    def _tool_result(self, message: ToolMessage, where: str) -> Block:
        content = self._asked(message.content or "(no output)", where) or [{"text": "(no output)"}]
        result: Block = {"toolUseId": _tool_use_id(message.tool_call_id), "content": content}
        return {"toolResult": result | ({"status": "error"} if message.is_error else {})}


def _assistant_blocks(message: AssistantMessage, where: str) -> list[Block]:
    blocks: list[Block] = [{"reasoningContent": _reasoning(detail)} for detail in message.kept_reasoning]
    for text, cached in said_parts(message):
        blocks.append({"text": text})
        if cached:
            blocks.append(_CACHE_POINT)
    for index, call in enumerate(message.tool_calls or ()):
        arguments = arguments_of(call, f"{where}.tool_calls.{index}")
        blocks.append({"toolUse": {"toolUseId": _tool_use_id(call.id), "name": call.function.name, "input": arguments}})
    return blocks


def _reasoning(detail: ReasoningDetail) -> Block:
    if detail.type == "reasoning.encrypted":
        return {"redactedContent": detail.data}
    return {"reasoningText": {"text": detail.text, "signature": detail.signature}}


def _tool_config(tools: Plan) -> dict[str, Any]:
    config: dict[str, Any] = {"tools": [block for offer in tools.offers for block in _spec(offer)]}
    if tools.must is not None:
        config["toolChoice"] = {"any": {}} if tools.must == ANY else {"tool": {"name": tools.must}}
    return config


def _spec(offer: Offer) -> list[Block]:
    spec: dict[str, Any] = {"name": offer.name, "inputSchema": {"json": offer.schema}}
    if offer.description:
        spec["description"] = offer.description
    if offer.strict:
        spec["strict"] = True
    return [{"toolSpec": spec}, *([_CACHE_POINT] if offer.cached else [])]


def _tool_use_id(given: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.:-]", "_", given)
