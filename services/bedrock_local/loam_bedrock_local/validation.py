"""The rules of the Converse API that its models' callers trip over, in Bedrock's words."""

from typing import Any

from loam_bedrock_local.errors import ValidationError
from loam_bedrock_local.models import Model
from loam_bedrock_local.prompt import Json

_RANGES = {"temperature": (0, 1), "topP": (0, 1), "maxTokens": (1, 1_000_000)}
_TOOL_BLOCKS = {"toolUse", "toolResult"}


def check(model: Model, body: Json) -> None:
    """Raise ValidationError when Bedrock would."""
    if model.kind != "Chat":
        raise ValidationError(
            "This action doesn't support the model that you provided. Try again with a supported model."
        )
    _check_messages(body.get("messages"))
    _check_tools(body)
    _check_inference(model, body.get("inferenceConfig") or {})


def _check_messages(messages: Any) -> None:
    if not messages or not isinstance(messages, list):
        raise ValidationError("The model returned the following errors: messages: at least one message is required")
    previous = None
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise ValidationError(
                f"Value at 'messages.{index}.member.role' failed to satisfy constraint: [user, assistant]"
            )
        if message["role"] == previous:
            raise ValidationError(
                "A conversation must alternate between user and assistant roles. "
                "Make sure the conversation alternates between user and assistant roles and try again."
            )
        previous = message["role"]
        _check_content(index, message.get("content"))


def _check_content(index: int, content: Any) -> None:
    if not content or not isinstance(content, list):
        raise ValidationError(
            f"The content field in the Message object at messages.{index} is empty. "
            "Add a ContentBlock object to the content field and try again."
        )
    for position, block in enumerate(content):
        if not isinstance(block, dict):
            raise ValidationError(f"Malformed ContentBlock at messages.{index}.content.{position}.")
        if block.get("text") == "":
            raise ValidationError(
                f"The text field in the ContentBlock object at messages.{index}.content.{position} is blank. "
                "Add text to the text field, and try again."
            )


def _check_tools(body: Json) -> None:
    expected: set[str] = set()
    for index, message in enumerate(body["messages"]):
        used = [block for block in message["content"] if _TOOL_BLOCKS & block.keys()]
        results = {block["toolResult"].get("toolUseId") for block in used if "toolResult" in block}
        if message["role"] == "user" and results - expected:
            raise ValidationError(
                f"The number of toolResult blocks at messages.{index}.content "
                "exceeds the number of toolUse blocks of previous turn."
            )
        if expected - results and message["role"] == "user":
            raise ValidationError(
                f"Expected toolResult blocks at messages.{index}.content for the following Ids: "
                f"{', '.join(sorted(expected - results))}"
            )
        # Tools that the model runs by itself have their results in the same message.
        expected = {block["toolUse"]["toolUseId"] for block in used if "toolUse" in block} - results
    if expected and "toolConfig" not in body:
        raise ValidationError("The toolConfig field must be defined when using toolUse and toolResult content blocks.")


def _check_inference(model: Model, config: Json) -> None:
    for name, (lowest, highest) in _RANGES.items():
        value = config.get(name)
        if value is None:
            continue
        if name != "maxTokens" and not model.samples:
            raise ValidationError(f"The model returned the following errors: `{name}` is not supported by this model.")
        if not isinstance(value, int | float) or not lowest <= value <= highest:
            relation, limit = (
                ("greater", lowest) if isinstance(value, int | float) and value < lowest else ("less", highest)
            )
            raise ValidationError(
                f"1 validation error detected: Value '{value}' at 'inferenceConfig.{name}' "
                f"failed to satisfy constraint: Member must have value {relation} than or equal to {limit}"
            )
