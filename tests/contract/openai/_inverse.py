"""From what Converse was asked to what an OpenAI client would have written for it: our mapping, backwards."""

import base64
import json
from typing import Any

Json = dict[str, Any]
MARK = {"cache_control": {"type": "ephemeral"}}
_MEDIA = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "csv": "text/csv",
    "html": "text/html",
    "md": "text/markdown",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}
_ELSEWHERE = (
    "guardrailConfig",
    "performanceConfig",
    "serviceTier",
    "promptVariables",
    "additionalModelResponseFieldPaths",
)


class Inexpressible(Exception):  # noqa: N818 - it is an answer, not an error
    """OpenAI's API has no word for this."""


def openai_request(body: Json) -> Json:
    """`body` of Converse as a chat completion's. Raises Inexpressible."""
    for name in _ELSEWHERE:
        if name in body:
            raise Inexpressible(name)
    request: Json = {"model": "m", "messages": [*_system(body.get("system", [])), *_messages(body["messages"])]}
    request |= _inference(body.get("inferenceConfig", {}))
    if "toolConfig" in body:
        request |= _tools(body["toolConfig"])
    if "outputConfig" in body:
        request["response_format"] = _format(body["outputConfig"])
    if effort := _effort(body.get("additionalModelRequestFields")):
        request["reasoning_effort"] = effort
    return request


def _system(blocks: list[Json]) -> list[Json]:
    parts: list[Json] = []
    for block in blocks:
        if "cachePoint" in block:
            parts[-1] |= MARK
        else:
            parts.append({"type": "text", "text": block["text"]})
    return [{"role": "system", "content": parts}] if parts else []


def _messages(turns: list[Json]) -> list[Json]:
    return [message for turn in turns for message in (_said if turn["role"] == "assistant" else _asked)(turn)]


def _asked(turn: Json) -> list[Json]:
    messages: list[Json] = []
    for block in turn["content"]:
        if "toolResult" in block:
            messages.append(_result(block["toolResult"]))
        elif "cachePoint" in block:
            last = messages[-1]
            (last if last["role"] == "tool" else last["content"][-1]).update(MARK)
        else:
            if not messages or messages[-1]["role"] != "user":
                messages.append({"role": "user", "content": []})
            messages[-1]["content"].append(part(block))
    return messages


def _result(result: Json) -> Json:
    message = {"role": "tool", "tool_call_id": result["toolUseId"], "content": [part(p) for p in result["content"]]}
    return message | ({"is_error": True} if result.get("status") == "error" else {})


def part(block: Json) -> Json:
    """A block as a part of a message."""
    if "text" in block:
        return {"type": "text", "text": block["text"]}
    if "image" in block:
        data = block["image"]["source"]["bytes"]
        return {"type": "image_url", "image_url": {"url": f"data:image/{block['image']['format']};base64,{data}"}}
    if "document" in block:
        document = block["document"]
        data = f"data:{_MEDIA[document['format']]};base64,{document['source']['bytes']}"
        return {"type": "file", "file": {"filename": document["name"], "file_data": data}}
    raise Inexpressible(next(iter(block)))


def _said(turn: Json) -> list[Json]:
    return [message_of(turn["content"])]


def message_of(blocks: list[Json]) -> Json:
    """An assistant's blocks as a message. Raises Inexpressible."""
    message: Json = {"role": "assistant"}
    if strange := [name for block in blocks for name in block if name not in _OWN]:
        raise Inexpressible(f"{strange[0]} of an assistant")
    if texts := [part(block) for block in blocks if "text" in block]:
        message["content"] = texts
    if calls := [_call(block["toolUse"]) for block in blocks if "toolUse" in block]:
        message["tool_calls"] = calls
    if details := [_detail(block["reasoningContent"]) for block in blocks if "reasoningContent" in block]:
        message["reasoning_details"] = details
    return message


_OWN = {"text", "toolUse", "reasoningContent"}


def _call(use: Json) -> Json:
    function = {"name": use["name"], "arguments": json.dumps(use["input"])}
    return {"id": use["toolUseId"], "type": "function", "function": function}


def _detail(reasoning: Json) -> Json:
    if "redactedContent" in reasoning:
        return {"type": "reasoning.encrypted", "data": reasoning["redactedContent"]}
    return {"type": "reasoning.text", **reasoning["reasoningText"]}


def _inference(config: Json) -> Json:
    names = {"temperature": "temperature", "topP": "top_p", "maxTokens": "max_tokens", "stopSequences": "stop"}
    return {names[name]: value for name, value in config.items()}


def _tools(config: Json) -> Json:
    tools: list[Json] = []
    for tool in config["tools"]:
        if "cachePoint" in tool:
            tools[-1] |= MARK
        elif "toolSpec" not in tool:
            raise Inexpressible(next(iter(tool)))
        else:
            spec = tool["toolSpec"]
            function = {"name": spec["name"], "parameters": spec["inputSchema"]["json"]}
            tools.append({"type": "function", "function": function | _described(spec)})
    return {"tools": tools} | _choice(config.get("toolChoice") or {"auto": {}})


def _described(spec: Json) -> Json:
    return {"description": spec["description"]} if "description" in spec else {}


def _choice(choice: Json) -> Json:
    if "tool" in choice:
        return {"tool_choice": {"type": "function", "function": {"name": choice["tool"]["name"]}}}
    return {"tool_choice": "required" if "any" in choice else "auto"}


def _format(config: Json) -> Json:
    told = config["textFormat"]["structure"]["jsonSchema"]
    schema = {"name": told["name"], "strict": True, "schema": json.loads(told["schema"])}
    return {"type": "json_schema", "json_schema": schema | _described(told)}


def _effort(fields: Json | None) -> str:
    if not fields:
        return ""
    if len(fields) == 1 and (effort := fields.get("reasoning_effort") or fields.get("reasoning_config")):
        return str(effort)
    if fields.get("thinking") == {"type": "adaptive"} and "output_config" in fields:
        return str(fields["output_config"]["effort"])
    raise Inexpressible(f"additionalModelRequestFields.{min(fields)}")


def normal(body: Json) -> Json:
    """`body` without what says nothing: defaults that are spelled out, and empty things."""
    kept = {name: value for name, value in body.items() if value not in ([], {}, None)}
    config = kept.get("toolConfig")
    if config and config.get("toolChoice") in ({"auto": {}}, None):
        kept["toolConfig"] = {"tools": config["tools"]}
    if "messages" in kept:
        kept["messages"] = [turn | {"content": normal_blocks(turn["content"])} for turn in kept["messages"]]
    if text_format := kept.get("outputConfig", {}).get("textFormat"):
        told = text_format["structure"]["jsonSchema"]
        kept["outputConfig"] = told | {"schema": json.loads(told["schema"])}
    return kept


def normal_blocks(blocks: list[Json]) -> list[Json]:
    """As for `normal`; base64 is compared by what it stands for."""
    made: list[Json] = []
    for block in blocks:
        if "toolResult" in block:
            result = {name: value for name, value in block["toolResult"].items() if (name, value) != _DEFAULT}
            made.append({"toolResult": result | {"content": normal_blocks(result["content"])}})
        elif media := block.get("document") or block.get("image"):
            data = base64.b64decode(media["source"]["bytes"])
            made.append({next(iter(block)): media | {"source": data}})
        else:
            made.append(block)
    return made


_DEFAULT = ("status", "success")
