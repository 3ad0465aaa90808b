"""Which tools a model is offered, and whether it must use one, in no provider's words."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from loam_gateway.completions.request import (
    AssistantMessage,
    ChatRequest,
    JsonSchema,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Tool,
)

ANSWER_TOOL = "json_answer"
"""The tool whose arguments are the answer when a JSON answer is asked for, of a model that has no other way."""

ANY = ""
"""Any tool, where one must be used."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool. `cached` marks the end of a prefix for the provider's cache."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool = False
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`must` is the name of the tool to use, ANY, or None for as the model likes.

    `json_answer` says that the answer comes as the arguments of ANSWER_TOOL; `schema` is what the model itself can be
    held to. `dropped` names what could not be kept.
    """

    offers: list[Offer]
    must: str | None
    json_answer: bool
    schema: JsonSchema | None
    dropped: tuple[str, ...]


def plan(request: ChatRequest, *, takes_schemas: bool) -> Plan:
    """The plan for `request`. `takes_schemas` says whether the model can be held to JSON Schemas."""
    schema = _native(request, takes_schemas=takes_schemas)
    json_answer = schema is None and request.wants_json
    choice = request.tool_choice
    given = [] if choice == "none" else request.tools or []
    offers = [_offer(tool, takes_schemas=takes_schemas) for tool in given]
    # A history of calls without any tool is refused, so the tools of the past are declared without a schema.
    known = {offer.name for offer in offers}
    offers += [Offer(name, {"type": "object"}) for name in sorted(_called(request.messages) - known)]
    if json_answer:
        offers.append(_answer(request))
    strict_lost = not takes_schemas and any(tool.function.strict for tool in given)
    return Plan(
        offers,
        _must(choice, json_answer=json_answer, alone=len(offers) == 1),
        json_answer,
        schema,
        ("tools.function.strict",) if strict_lost else (),
    )


def _native(request: ChatRequest, *, takes_schemas: bool) -> JsonSchema | None:
    # Models refuse schemas that are not closed; those which OpenAI calls strict are.
    wanted = request.response_format
    if takes_schemas and isinstance(wanted, JsonSchemaFormat) and wanted.json_schema.strict:
        return wanted.json_schema
    return None


def _must(choice: str | NamedTool | None, *, json_answer: bool, alone: bool) -> str | None:
    if isinstance(choice, NamedTool):
        return choice.function.name
    if json_answer:
        # With tools of the caller's own the model may call those first; its answer still has to be JSON.
        return ANSWER_TOOL if alone or choice == "none" else ANY
    return ANY if choice == "required" else None


def _offer(tool: Tool, *, takes_schemas: bool) -> Offer:
    function = tool.function
    return Offer(
        function.name,
        function.parameters or {"type": "object", "properties": {}},
        function.description or None,
        strict=takes_schemas and bool(function.strict),
        cached=tool.cache_control is not None,
    )


def _called(messages: Iterable[Message]) -> set[str]:
    calls = (message.tool_calls or () for message in messages if isinstance(message, AssistantMessage))
    return {call.function.name for group in calls for call in group}


def _answer(request: ChatRequest) -> Offer:
    wanted = request.response_format
    schema: dict[str, Any] = {"type": "object"}
    description = "Give the answer, as JSON, in the arguments of this call."
    if isinstance(wanted, JsonSchemaFormat):
        schema = wanted.json_schema.schema_
        description = wanted.json_schema.description or description
    return Offer(ANSWER_TOOL, schema, description)
