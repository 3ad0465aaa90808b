"""Which tools are called, and with what: always an input that the tool's schema allows."""

from contextlib import suppress

import jsonschema
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loam_bedrock_local.arguments import Filler
from loam_bedrock_local.converse import ToolUse
from loam_bedrock_local.errors import BedrockError
from loam_bedrock_local.models import resolve

NOVA = "amazon.nova-lite-v1:0"

FLIGHT = {
    "type": "object",
    "properties": {
        "origin": {"type": "string"},
        "destination": {"type": "string"},
        "date": {"type": "string", "format": "date"},
        "passengers": {"type": "integer", "minimum": 1, "maximum": 9},
        "cabin": {"enum": ["economy", "business"]},
    },
    "required": ["origin", "destination", "date", "passengers"],
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "email": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "age": {"type": ["integer", "null"]},
        "address": {"$ref": "#/$defs/Address"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "subscribe": {"type": "boolean"},
    },
    "required": ["name", "address", "tags", "subscribe"],
    "$defs": {"Address": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}


def _tool(name, description="", **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"toolSpec": {"name": name, "description": description, "inputSchema": {"json": schema}}}


def _config(*tools, **choice):
    return {"toolConfig": {"tools": list(tools), **({"toolChoice": choice} if choice else {})}}


TOOLS = (
    _tool("get_weather", "Current weather for a city.", city={"type": "string"}),
    _tool("searchHandbook", "Look something up in the handbook.", query={"type": "string"}),
    _tool("convert_money", "Converts an amount between currencies.", amount={"type": "number"}),
)


@pytest.mark.parametrize(
    ("question", "name", "arguments"),
    [
        ("What is the weather like in New York today?", "get_weather", {"city": "New York"}),
        (
            "What does the handbook say about leave?",
            "searchHandbook",
            {"query": "What does the handbook say about leave?"},
        ),
        ("Please convert 12.5 dollars of money", "convert_money", {"amount": 12.5}),
    ],
)
async def test_the_tool_that_the_question_is_about_is_called(complete, question, name, arguments):
    completion = await complete(question, **_config(*TOOLS))
    (call,) = completion.blocks
    assert (call.name, call.input, completion.stop_reason) == (name, arguments, "tool_use")


async def test_no_tool_is_called_for_small_talk(complete):
    assert (await complete("Hello there, how are you?", **_config(*TOOLS))).stop_reason == "end_turn"


async def test_with_any_a_second_tool_is_called_after_the_first_and_takes_its_result(engine):
    use = {"toolUseId": "t1", "name": "get_weather", "input": {"city": "Oslo"}}
    result = {"toolUseId": "t1", "content": [{"json": {"temperature": 7}}]}
    messages = [
        {"role": "user", "content": [{"text": "What is the weather in Oslo?"}]},
        {"role": "assistant", "content": [{"toolUse": use}]},
        {"role": "user", "content": [{"toolResult": result}]},
    ]
    final = _tool("final_result", "", temperature={"type": "number"})
    completion = await engine.complete(resolve(NOVA), {"messages": messages, **_config(TOOLS[0], final, any={})})
    assert [(call.name, call.input) for call in completion.blocks] == [("final_result", {"temperature": 7.0})]
    spoken = await engine.complete(resolve(NOVA), {"messages": messages, **_config(TOOLS[0])})
    assert (spoken.blocks, spoken.stop_reason) == (("temperature: 7",), "end_turn")


def test_a_flight_is_booked_as_it_was_said():
    said = "Book a business flight from Berlin to New York on 3rd March 2027 for 2 passengers."
    assert Filler(said).fill(FLIGHT) == {
        "origin": "Berlin",
        "destination": "New York",
        "date": "2027-03-03",
        "passengers": 2,
        "cabin": "business",
    }


def test_two_names_go_into_two_fields():
    schema = {"type": "object", "properties": {"first": {"type": "string"}, "second": {"type": "string"}}}
    assert Filler("please introduce Ada to Grace").fill(schema) == {"first": "Ada", "second": "Grace"}


def test_nested_and_optional_fields_are_filled_as_far_as_the_text_goes():
    filled = Filler("Add a person with name: Ada Lovelace, email ada@example.org, living in London; subscribe.").fill(
        PERSON
    )
    jsonschema.validate(filled, PERSON)
    assert (filled["name"], filled["email"], filled["address"]) == (
        "Ada Lovelace",
        "ada@example.org",
        {"city": "London"},
    )
    assert filled["subscribe"] is True


@pytest.mark.parametrize("text", ["", "hm", "Do it 3 times, not 12!", "A. B? C: d"])
@pytest.mark.parametrize("schema", [FLIGHT, PERSON])
def test_required_fields_are_there_whatever_was_said(text, schema):
    filled = Filler(text).fill(schema)
    jsonschema.validate(filled, schema)


NODE = {"type": "object", "properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}, "required": ["child"]}
KEYWORDS = [
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "anyOf",
    "$ref",
    "minimum",
    "default",
    "format",
    "maxItems",
]
JSON = st.recursive(
    st.none() | st.integers(-3, 3) | st.sampled_from(["string", "integer", "array", "object", "a", "#/a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=3),
)


def test_a_schema_that_refers_to_itself_is_filled_to_a_depth():
    assert Filler("").fill(NODE)["child"]["child"]["child"]


@settings(max_examples=300)
@given(JSON, st.text(max_size=20))
def test_any_schema_is_filled_or_refused(schema, text):
    with suppress(BedrockError):
        assert isinstance(Filler(text).fill({"type": "object", "properties": {"a": schema}}), dict)


async def test_structured_output_is_json_of_the_schema(complete):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    structure = {"jsonSchema": {"name": "Place", "schema": orjson.dumps(schema).decode()}}
    wanted = {"textFormat": {"type": "json_schema", "structure": structure}}
    (text,) = (await complete("The tower stands in Paris.", outputConfig=wanted)).blocks
    assert orjson.loads(text) == {"city": "Paris"}


async def test_a_call_that_max_tokens_cuts_is_within_the_limit_and_says_why_it_ended(complete):
    question = "Search the handbook for all of the rules on travelling with a bicycle by train and by ferry"
    completion = await complete(question, inferenceConfig={"maxTokens": 6}, **_config(*TOOLS))
    (call,) = completion.blocks
    assert isinstance(call, ToolUse)
    assert (completion.stop_reason, completion.usage.output <= 6, call.json) == ("max_tokens", True, call.partial)
