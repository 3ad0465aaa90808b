"""The rules of the Converse API that its callers trip over, in Bedrock's words."""

from typing import Any

from loam_bedrock_local.errors import ValidationError
from loam_bedrock_local.models import Model
from loam_bedrock_local.prompt import Json

# What this stand-in reads of a request: types (or the values allowed), ``!`` after what must be there.
_SOURCE: Json = {"source": {"bytes": str, "text": str}}
_TEXTS: list[Any] = [{"text": str}]
_RESULT: Json = {"text": str, "json": object, "document": _SOURCE | {"name": str, "format": str}, "image": _SOURCE}
_BLOCK: Json = {
    "text": str,
    "image": _SOURCE,
    "video": _SOURCE,
    "audio": _SOURCE,
    "document": _SOURCE | {"name": str, "format": str},
    "searchResult": {"source": str, "content!": _TEXTS},
    "toolUse": {"toolUseId!": str, "name!": str, "input": object},
    "toolResult": {"toolUseId!": str, "content": [_RESULT]},
    "cachePoint": {"type!": ("default",), "ttl": ("5m", "1h")},
}
_REQUEST: Json = {
    "messages": [{"role!": ("user", "assistant"), "content!": [_BLOCK]}],
    "system": [{"text": str, "cachePoint": _BLOCK["cachePoint"]}],
    "inferenceConfig": {"maxTokens": int, "temperature": (int, float), "topP": (int, float), "stopSequences": [str]},
    "toolConfig": {
        "tools!": [
            {
                "toolSpec": {"name!": str, "description": str, "inputSchema": {"json": dict}},
                "cachePoint": _BLOCK["cachePoint"],
            }
        ],
        "toolChoice": {"auto": dict, "any": dict, "tool": {"name!": str}},
    },
    "additionalModelRequestFields": {"thinking": {"type": str}},
    "requestMetadata": dict,
    "outputConfig": {
        "textFormat": {"type!": ("json_schema",), "structure!": {"jsonSchema!": {"schema!": str, "name": str}}}
    },
}
_RANGES = {"temperature": (0, 1), "topP": (0, 1), "maxTokens": (1, 1_000_000)}


def check(model: Model, body: Json) -> None:
    """Raise ValidationError when Bedrock would."""
    if model.kind != "Chat":
        raise ValidationError(
            "This action doesn't support the model that you provided. Try again with a supported model."
        )
    conform(body, _REQUEST)
    _check_messages(body.get("messages") or [])
    _check_tools(body.get("toolConfig"))
    _check_tool_results(body)
    _check_inference(model, body.get("inferenceConfig") or {})


def conform(value: Any, shape: Any, path: str = "") -> None:
    """Make sure that `value` has the types that `shape` says; members that it does not name may be there.

    As in AWS's JSON protocol a null member counts as absent, so it is taken out.

    Raises:
        ValidationError: something is of another type, not among the allowed values, or missing.
    """
    if isinstance(shape, list) and isinstance(value, list):
        for index, item in enumerate(value):
            conform(item, shape[0], f"{path}.{index}")
    elif isinstance(shape, dict) and isinstance(value, dict):
        _conform_members(value, shape, path)
    elif not _fits(value, shape):
        raise ValidationError(f"Value at '{path[1:] or 'body'}' has the wrong type or is not one of the allowed values")


def _conform_members(value: Json, shape: Json, path: str) -> None:
    for name, inner in shape.items():
        key = name.rstrip("!")
        if value.get(key) is not None:
            conform(value[key], inner, f"{path}.{key}")
        elif name.endswith("!"):
            raise ValidationError(f"Value at '{path[1:]}.{key}' failed to satisfy constraint: Member must not be null")
        else:
            value.pop(key, None)


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, tuple) and not isinstance(shape[0], type):
        return value in shape
    if isinstance(value, bool):
        # JSON's true and false are no numbers, whatever Python says.
        return shape is object
    return isinstance(shape, type | tuple) and isinstance(value, shape)


def _check_messages(messages: list[Json]) -> None:
    if not messages:
        raise ValidationError("The model returned the following errors: messages: at least one message is required")
    previous = None
    for index, message in enumerate(messages):
        if message["role"] == previous:
            raise ValidationError(
                "A conversation must alternate between user and assistant roles. "
                "Make sure the conversation alternates between user and assistant roles and try again."
            )
        previous = message["role"]
        _check_content(index, message["content"])


def _check_content(index: int, content: list[Json]) -> None:
    if not content:
        raise ValidationError(
            f"The content field in the Message object at messages.{index} is empty. "
            "Add a ContentBlock object to the content field and try again."
        )
    for position, block in enumerate(content):
        if block.get("text") == "":
            raise ValidationError(
                f"The text field in the ContentBlock object at messages.{index}.content.{position} is blank. "
                "Add text to the text field, and try again."
            )


def _check_tools(config: Json | None) -> None:
    if config is None:
        return
    names = {tool["toolSpec"]["name"] for tool in config["tools"] if "toolSpec" in tool}
    if not config["tools"]:
        raise ValidationError("The toolConfig.tools field is empty. Add a tool and try again.")
    chosen = ((config.get("toolChoice") or {}).get("tool") or {}).get("name")
    if chosen is not None and chosen not in names:
        raise ValidationError(f"The tool {chosen} of toolConfig.toolChoice is not among toolConfig.tools.")


def _check_tool_results(body: Json) -> None:
    """Every call of a tool has its result in the next message, and no result comes without its call."""
    expected: set[str] = set()
    for index, message in enumerate(body["messages"]):
        results = {block["toolResult"]["toolUseId"] for block in message["content"] if "toolResult" in block}
        if message["role"] == "user" and results - expected:
            raise ValidationError(
                f"The number of toolResult blocks at messages.{index}.content "
                "exceeds the number of toolUse blocks of previous turn."
            )
        if message["role"] == "user" and expected - results:
            raise ValidationError(
                f"Expected toolResult blocks at messages.{index}.content for the following Ids: "
                f"{', '.join(sorted(expected - results))}"
            )
        # Tools that the model runs by itself have their results in the same message.
        expected = {block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block} - results
        if "toolConfig" not in body and (expected or results):
            raise ValidationError(
                "The toolConfig field must be defined when using toolUse and toolResult content blocks."
            )


def _check_inference(model: Model, config: Json) -> None:
    for name, (lowest, highest) in _RANGES.items():
        value = config.get(name)
        if value is None:
            continue
        if name != "maxTokens" and not model.samples:
            raise ValidationError(f"The model returned the following errors: `{name}` is not supported by this model.")
        if not lowest <= value <= highest:
            relation, limit = ("greater", lowest) if value < lowest else ("less", highest)
            raise ValidationError(
                f"1 validation error detected: Value '{value}' at 'inferenceConfig.{name}' "
                f"failed to satisfy constraint: Member must have value {relation} than or equal to {limit}"
            )
