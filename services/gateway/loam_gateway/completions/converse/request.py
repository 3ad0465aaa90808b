"""From a chat request to the body of Converse and ConverseStream."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from loam_gateway.completions.converse.media import document_block, image_block
from loam_gateway.completions.request import (
    AssistantMessage,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonSchemaFormat,
    Message,
    NamedTool,
    RefusalPart,
    SystemMessage,
    TextFormat,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
    without_effect,
)
from loam_shared.errors import InvalidRequestError

ANSWER_TOOL = "json_answer"
"""The tool whose arguments are the answer when a JSON answer is asked for."""

# The newest Claude models take no sampling parameters at all; those before them take one of the two.
_NO_SAMPLING = re.compile(r"anthropic\.claude-(?:opus|sonnet|haiku)-[5-9]")
_ONE_SAMPLING = re.compile(r"anthropic\.claude-(?:opus|sonnet|haiku)-4-[15]")


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
    inference, dropped = _inference(request, model_id)
    json_answer = not isinstance(request.response_format, TextFormat | None)
    body: dict[str, Any] = {"messages": _turns(request.messages)}
    if system := [{"text": text} for text in _system(request.messages)]:
        body["system"] = system
    if tools := _tool_config(request, json_answer=json_answer):
        body["toolConfig"] = tools
    return Converse(body, inference, (*without_effect(request), *dropped), json_answer)


def _inference(request: ChatRequest, model_id: str) -> tuple[dict[str, Any], list[str]]:
    wanted = {"temperature": request.temperature, "top_p": request.top_p}
    given = {name: value for name, value in wanted.items() if value is not None}
    dropped = _sampling_not_taken(model_id, list(given))
    names = {"temperature": "temperature", "top_p": "topP"}
    config: dict[str, Any] = {names[name]: value for name, value in given.items() if name not in dropped}
    if request.stop_sequences:
        config["stopSequences"] = request.stop_sequences
    return config, dropped


def _sampling_not_taken(model_id: str, given: list[str]) -> list[str]:
    if _NO_SAMPLING.search(model_id):
        return given
    if _ONE_SAMPLING.search(model_id):
        return given[1:]
    return []


def _system(messages: Iterable[Message]) -> Iterable[str]:
    for message in messages:
        if isinstance(message, SystemMessage):
            yield from _texts(message.content)


def _texts(content: str | list[TextPart]) -> list[str]:
    texts = [content] if isinstance(content, str) else [part.text for part in content]
    return [text for text in texts if text.strip()]


def _turns(messages: list[Message]) -> list[dict[str, Any]]:
    """Alternating turns: Converse wants neighbours of one role as one message, and results within the user's turn."""
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if isinstance(message, SystemMessage):
            continue
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        blocks = _blocks(message, f"messages.{index}")
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] != "user":
        raise InvalidRequestError("messages: the conversation must begin with a user message", param="messages")
    return turns


def _blocks(message: Message, where: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]]
    if isinstance(message, ToolMessage):
        return [_tool_result(message)]
    if isinstance(message, AssistantMessage):
        blocks = _assistant_blocks(message, where)
    else:
        assert isinstance(message, UserMessage)
        blocks = _user_blocks(message, where)
    if not blocks:
        raise InvalidRequestError(f"{where}.content: the message is empty", param=f"{where}.content")
    return blocks


def _user_blocks(message: UserMessage, where: str) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"text": message.content}] if message.content.strip() else []
    blocks = []
    for index, part in enumerate(message.content):
        place = f"{where}.content.{index}"
        if isinstance(part, ImagePart):
            blocks.append(image_block(part.image_url.url, place))
        elif isinstance(part, FilePart):
            blocks.append(document_block(part.file.file_data, part.file.filename, place))
        elif part.text.strip():
            blocks.append({"text": part.text})
    return blocks


def _assistant_blocks(message: AssistantMessage, where: str) -> list[dict[str, Any]]:
    content = message.content if message.content is not None else message.refusal or ""
    parts = content if isinstance(content, list) else [TextPart(type="text", text=content)]
    texts = [part.refusal if isinstance(part, RefusalPart) else part.text for part in parts]
    blocks: list[dict[str, Any]] = [{"text": text} for text in texts if text.strip()]
    for index, call in enumerate(message.tool_calls or ()):
        blocks.append({"toolUse": _tool_use(call, f"{where}.tool_calls.{index}")})
    return blocks


def _tool_use(call: ToolCall, where: str) -> dict[str, Any]:
    try:
        arguments = orjson.loads(call.function.arguments or "{}")
    except orjson.JSONDecodeError as error:
        where = f"{where}.function.arguments"
        raise InvalidRequestError(f"{where}: must be JSON, {error}", param=where) from error
    return {"toolUseId": _tool_use_id(call.id), "name": call.function.name, "input": arguments}


def _tool_result(message: ToolMessage) -> dict[str, Any]:
    content = [{"text": text} for text in _texts(message.content)] or [{"text": "(no output)"}]
    return {"toolResult": {"toolUseId": _tool_use_id(message.tool_call_id), "content": content}}


def _tool_use_id(given: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", given)


def _tool_config(request: ChatRequest, *, json_answer: bool) -> dict[str, Any] | None:
    choice = request.tool_choice
    offered = [] if choice == "none" else [_spec(tool) for tool in request.tools or ()]
    # Converse refuses a history of calls without any tool, so the tools of the past are declared without a schema.
    known = {spec["toolSpec"]["name"] for spec in offered}
    offered += [_remembered(name) for name in sorted(_called(request.messages) - known)]
    if json_answer:
        offered.append(_answer_spec(request))
    if not offered:
        return None
    config: dict[str, Any] = {"tools": offered}
    if chosen := _choice(choice, json_answer=json_answer, alone=len(offered) == 1):
        config["toolChoice"] = chosen
    return config


def _choice(choice: str | NamedTool | None, *, json_answer: bool, alone: bool) -> dict[str, Any] | None:
    if isinstance(choice, NamedTool):
        return {"tool": {"name": choice.function.name}}
    if json_answer:
        # With tools of the caller's own the model may call those first; its answer still has to be JSON.
        return {"tool": {"name": ANSWER_TOOL}} if alone or choice == "none" else {"any": {}}
    return {"any": {}} if choice == "required" else None


def _spec(tool: Tool) -> dict[str, Any]:
    function = tool.function
    schema = function.parameters or {"type": "object", "properties": {}}
    spec: dict[str, Any] = {"name": function.name, "inputSchema": {"json": schema}}
    if function.description:
        spec["description"] = function.description
    return {"toolSpec": spec}


def _remembered(name: str) -> dict[str, Any]:
    return {"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}}


def _called(messages: Iterable[Message]) -> set[str]:
    calls = (message.tool_calls or () for message in messages if isinstance(message, AssistantMessage))
    return {call.function.name for group in calls for call in group}


def _answer_spec(request: ChatRequest) -> dict[str, Any]:
    wanted = request.response_format
    schema: dict[str, Any] = {"type": "object"}
    description = "Give the answer, as JSON, in the arguments of this call."
    if isinstance(wanted, JsonSchemaFormat):
        schema = wanted.json_schema.schema_
        description = wanted.json_schema.description or description
    return {"toolSpec": {"name": ANSWER_TOOL, "description": description, "inputSchema": {"json": schema}}}
