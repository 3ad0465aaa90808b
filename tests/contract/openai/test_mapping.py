"""What goes to Bedrock is valid for Converse, and what comes back is valid for OpenAI's client."""

import json

import botocore.session
import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from loam_gateway.completions.converse import converse, to_converse
from loam_gateway.completions.converse.bounds import input_tokens
from loam_gateway.completions.converse.reply import ConverseChunks, said
from loam_gateway.completions.reply import Heading, completion, usage_of
from loam_gateway.completions.request import ChatRequest, parse
from loam_gateway.completions.tools import ANSWER_TOOL
from loam_shared.errors import InvalidRequestError

from ._requests import CALLED, REQUESTS, USER

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
NEWEST = "anthropic.claude-haiku-5-5"


@pytest.fixture(scope="session")
def converse_shape():
    """Bedrock's own description of a Converse request."""
    model = botocore.session.Session().get_service_model("bedrock-runtime")
    return model.operation_model("Converse").input_shape


def request(body):
    return parse(ChatRequest, json.dumps({"model": "m"} | body).encode())


@pytest.mark.parametrize("name", REQUESTS)
def test_every_kind_of_request_is_valid_for_converse(name, converse_shape):
    report = ParamValidator().validate(body(name) | {"modelId": HAIKU}, converse_shape)
    assert not report.has_errors(), report.generate_report()


def body(name, model_id=HAIKU):
    return json.loads(converse(request(REQUESTS[name]), model_id).encoded(10, {"a": "b"}, stream=False))


def test_turns_alternate_and_results_are_the_users():
    for name in REQUESTS:
        roles = [turn["role"] for turn in body(name)["messages"]]
        assert roles[::2] == ["user"] * len(roles[::2])
        assert roles[1::2] == ["assistant"] * len(roles[1::2])
    last = body("results")["messages"][-1]["content"]
    assert [next(iter(block)) for block in last] == ["toolResult", "text"]


def test_the_newest_claude_models_get_no_sampling_parameters_and_the_caller_hears_it():
    old = to_converse(request(REQUESTS["sampling"]), model_id=HAIKU)
    new = to_converse(request(REQUESTS["sampling"]), model_id=f"global.{NEWEST}")
    assert old.inference == {"temperature": 0.2, "topP": 0.9, "stopSequences": ["END"]}
    assert old.dropped == ()
    assert new.inference == {"stopSequences": ["END"]}
    assert new.dropped == ("temperature", "top_p")


def test_what_has_no_effect_is_named():
    given_ones = {"seed": 1, "logit_bias": {"1": 2}, "parallel_tool_calls": False, "user": "ann", "store": False}
    call = to_converse(request(REQUESTS["plain"] | given_ones), model_id=HAIKU)
    assert set(call.dropped) == {"seed", "logit_bias", "parallel_tool_calls"}


def test_a_json_answer_is_a_forced_tool_and_with_tools_of_the_caller_any_of_them():
    assert body("json")["toolConfig"]["toolChoice"] == {"tool": {"name": ANSWER_TOOL}}
    assert body("json and tools")["toolConfig"]["toolChoice"] == {"any": {}}


def image(url):
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


BROKEN_CALL = CALLED | {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]}


@pytest.mark.parametrize(
    ("flaw", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages.0.content"),
        ({"messages": [{"role": "system", "content": "Hi."}]}, "messages"),
        ({"messages": [{"role": "king", "content": "Hi."}]}, "messages.0"),
        ({"messages": [USER], "max_token": 5}, "max_token"),
        ({"messages": [USER], "n": 2}, "n"),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens"),
        ({"messages": [USER], "temperature": 3}, "temperature"),
        ({"messages": [image("http://a/b.png")]}, "messages.0.content.0"),
        ({"messages": [image("data:image/tiff;base64,QUJD")]}, "messages.0.content.0"),
        ({"messages": [USER, BROKEN_CALL]}, "messages.1.tool_calls.0.function.arguments"),
    ],
)
def test_a_flaw_is_refused_by_the_name_of_its_field(flaw, param):
    with pytest.raises(InvalidRequestError) as caught:
        to_converse(request(flaw), model_id=HAIKU)
    assert caught.value.param == param
    assert param in caught.value.message


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_the_bound_of_the_input_is_never_below_its_bytes(text, system):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    call = converse(request({"messages": messages}), HAIKU)
    assert call.input_bound >= len(text.encode()) + len(system.strip().encode())


def test_media_are_bounded_by_what_they_become_not_by_their_encoding():
    assert converse(request(REQUESTS["parts"]), HAIKU).input_bound >= 5_000
    assert converse(request(REQUESTS["document"]), HAIKU).input_bound >= 600_000
    image = {"image": {"format": "png", "source": {"bytes": "A" * 4_000_000}}}
    large = {"messages": [{"role": "user", "content": [image]}]}
    assert input_tokens(large, len(json.dumps(large))) < 6_000


def spoken(stream):
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    return [(message.headers[":event-type"], json.loads(message.payload)) for message in buffer]


def test_every_recorded_answer_becomes_a_completion(recorded_answers):
    for name, reply in recorded_answers:
        answer = said(reply, json_answer=False)
        made = completion(Heading.new("m"), answer, usage_of(answer.usage, 1))
        parsed = ChatCompletion.model_validate(made)
        texts = [block["text"] for block in reply["output"]["message"]["content"] if "text" in block]
        blocks = reply["output"]["message"]["content"]
        # What Bedrock has called and answered itself is none of the caller's calls.
        done = {block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block}
        calls = [block for block in blocks if "toolUse" in block and block["toolUse"]["toolUseId"] not in done]
        assert (parsed.choices[0].message.content or "") == "".join(texts), name
        assert len(parsed.choices[0].message.tool_calls or ()) == len(calls), name
        assert parsed.choices[0].finish_reason in {"stop", "length", "tool_calls", "content_filter"}, name
        assert parsed.usage.total_tokens == reply["usage"]["totalTokens"], name


def server_side(delta, events):
    starts = [p for event, p in events if event == "contentBlockStart"]
    [start] = [p["start"] for p in starts if p["contentBlockIndex"] == delta["contentBlockIndex"]] or [{}]
    return start.get("toolUse", {}).get("type") == "server_tool_use"


def test_every_recorded_stream_becomes_chunks_that_say_the_same(recorded_streams):
    for name, stream in recorded_streams:
        maker, chunks = ConverseChunks(Heading.new("m"), json_answer=False), []
        events = spoken(stream)
        for event, payload in events:
            chunks += [ChatCompletionChunk.model_validate(chunk) for chunk in maker.chunks(event, payload)]
        deltas = [p["delta"] for event, p in events if event == "contentBlockDelta" and not server_side(p, events)]
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert said == "".join(delta.get("text", "") for delta in deltas), name
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        arguments = "".join(call.function.arguments or "" for call in calls)
        assert arguments == "".join(delta.get("toolUse", {}).get("input", "") for delta in deltas), name
        assert maker.usage is not None, name
        assert len(maker.last) == 1, name
        assert ChatCompletionChunk.model_validate(maker.last[0]).choices[0].finish_reason, name
        assert maker.output_bytes >= len(said.encode()) + len(arguments.encode()), name
