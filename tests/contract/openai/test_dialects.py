"""What goes to Anthropic and OpenAI is valid by their own SDKs' types, and nobody's words leak into another's."""

import json
from collections.abc import Iterator

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from loam_gateway.completions import abilities
from loam_gateway.completions.dialects import DIALECTS
from loam_gateway.completions.reply import Heading, completion, usage_of
from loam_gateway.completions.request import ChatRequest, parse
from loam_shared.errors import InvalidRequestError

from ._requests import PDF, REQUESTS, USER

CLAUDE, OLD_CLAUDE, GPT, REASONER = "claude-sonnet-4-6", "claude-3-haiku-20240307", "gpt-4.1", "gpt-5-mini"
MODELS = {"Bedrock": "anthropic.claude-3-haiku-20240307-v1:0", "Anthropic": CLAUDE, "OpenAI": GPT}


def call(provider, model_id, body):
    request = parse(ChatRequest, json.dumps({"model": "m"} | body).encode())
    return DIALECTS[provider](request, model_id)


def sent(provider, model_id, name, **more):
    return json.loads(call(provider, model_id, REQUESTS[name] | more).encoded(10, {"loam-key": "k1"}, stream=False))


@pytest.fixture(scope="session")
def messages_type():
    """Anthropic's own type of a request, to which nothing may be added."""
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(MessageCreateParamsNonStreaming))


@pytest.fixture(scope="session")
def completions_type():
    """OpenAI's."""
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(CompletionCreateParamsNonStreaming))


def read_out(value):
    """Their lists are checked only as they are read."""
    if isinstance(value, dict):
        return {name: read_out(each) for name, each in value.items()}
    if isinstance(value, list | Iterator):
        return [read_out(each) for each in value]
    return value


@pytest.mark.parametrize("model_id", [CLAUDE, OLD_CLAUDE])
@pytest.mark.parametrize("name", REQUESTS)
def test_every_kind_of_request_is_valid_for_anthropic(name, model_id, messages_type):
    body = sent("Anthropic", model_id, name)
    # Their SDK knows no sampling any more, since its newest models take none; older ones do.
    told = {name: value for name, value in body.items() if name not in abilities.SAMPLING}
    assert read_out(messages_type.validate_python(told))["model"] == model_id
    roles = [turn["role"] for turn in body["messages"]]
    assert roles[::2] == ["user"] * len(roles[::2])
    assert roles[1::2] == ["assistant"] * len(roles[1::2])


@pytest.mark.parametrize("model_id", [GPT, REASONER, "llama-3"])
@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "media in a result"])
def test_every_kind_of_request_is_valid_for_openai(name, model_id, completions_type):
    body = sent("OpenAI", model_id, name)
    limit = "max_tokens" if model_id == "llama-3" else "max_completion_tokens"
    assert body[limit] == 10
    read_out(completions_type.validate_python(body))
    for word in ("cache_control", "reasoning_details", "is_error"):
        assert word not in json.dumps(body), word


def test_what_is_more_than_openai_has_reaches_anthropic():
    failed = sent("Anthropic", CLAUDE, "a failed call")["messages"][-1]["content"][0]
    assert (failed["type"], failed["is_error"]) == ("tool_result", True)
    marked = sent("Anthropic", CLAUDE, "marks for the cache")
    assert json.dumps(marked).count("cache_control") == 4
    assert "cache_control" in marked["tools"][0]
    result = sent("Anthropic", CLAUDE, "media in a result")["messages"][-1]["content"][0]
    assert [block["type"] for block in result["content"]] == ["text", "image"]
    thought = sent("Anthropic", CLAUDE, "reasoning given back")["messages"][1]["content"]
    assert [block["type"] for block in thought] == ["thinking", "redacted_thinking", "text"]
    alone = sent("Anthropic", CLAUDE, "one call at a time")["tool_choice"]
    assert alone == {"type": "auto", "disable_parallel_tool_use": True}


def test_their_types_would_notice_a_word_of_ours(messages_type, completions_type):
    with pytest.raises(ValidationError):
        messages_type.validate_python(sent("Anthropic", CLAUDE, "sampling") | {"stop": ["END"]})
    with pytest.raises(ValidationError):
        completions_type.validate_python(sent("OpenAI", GPT, "sampling") | {"system": "Be brief."})


def test_a_call_is_streamed_with_its_usage_wherever_it_goes():
    for provider, model_id in MODELS.items():
        body = json.loads(call(provider, model_id, REQUESTS["plain"]).encoded(10, {}, stream=True))
        if provider != "Bedrock":
            assert body["stream"] is True
        if provider == "OpenAI":
            assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("model_id", "version", "sampling", "schemas", "adaptive"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", (3, 0), 2, False, False),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", (3, 7), 2, False, False),
        ("anthropic.claude-sonnet-4-20250514-v1:0", (4, 0), 2, False, False),
        ("claude-opus-4-1", (4, 1), 1, False, False),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", (4, 5), 1, True, False),
        ("us.anthropic.claude-sonnet-4-6", (4, 6), 1, True, True),
        ("claude-opus-4-8", (4, 8), 0, True, True),
        ("global.anthropic.claude-haiku-5-5", (5, 5), 0, True, True),
        ("claude-fable-5", (5, 0), 0, True, True),
        ("amazon.nova-micro-v1:0", None, 2, False, False),
        ("zai.glm-4.7-flash", None, 2, True, False),
        ("anthropic.claude-v2", None, 2, False, False),
    ],
)
def test_what_a_model_takes_is_told_from_its_id(model_id, version, sampling, schemas, adaptive):
    assert abilities.claude_version(model_id) == version
    assert abilities.most_sampling(model_id) == sampling
    assert abilities.takes_schemas(model_id) is schemas
    assert abilities.thinks_adaptively(model_id) is adaptive


def test_a_model_that_reasons_gets_no_sampling_and_the_caller_hears_it():
    given_ones = {"temperature": 0.2, "top_p": 0.9, "seed": 1}
    assert call("OpenAI", REASONER, REQUESTS["plain"] | given_ones).dropped == ("temperature", "top_p")
    assert call("OpenAI", GPT, REQUESTS["plain"] | given_ones).dropped == ()
    assert sent("OpenAI", GPT, "plain", **given_ones)["seed"] == 1


def test_thinking_is_not_asked_of_a_model_that_is_forced_to_use_a_tool():
    forced = REQUESTS["tools"] | {"reasoning_effort": "high"}
    assert call("Anthropic", CLAUDE, forced).dropped == ("reasoning_effort",)
    assert "thinking" in sent("Anthropic", CLAUDE, "effort")
    assert "temperature" in call("Anthropic", CLAUDE, REQUESTS["effort"] | {"temperature": 0.5}).dropped


@pytest.mark.parametrize("provider", MODELS)
def test_nobody_is_made_to_fetch_anything(provider):
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    file = {"type": "file", "file": {"file_data": "https://a/b.pdf"}}
    for part in (image, file):
        for message in ({"role": "user", "content": [part]}, {"role": "tool", "tool_call_id": "c", "content": [part]}):
            with pytest.raises(InvalidRequestError, match=r"data URL"):
                call(provider, MODELS[provider], {"messages": [USER, message]})


@pytest.mark.parametrize("provider", MODELS)
@given(st.text(min_size=1).filter(str.strip), st.text())
def test_the_bound_of_the_input_is_never_below_its_bytes(provider, text, system):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    made = call(provider, MODELS[provider], {"messages": messages})
    assert made.input_bound >= len(text.encode()) + len(system.strip().encode())


@pytest.mark.parametrize("provider", MODELS)
def test_a_pdf_is_bounded_by_its_pages_not_by_its_bytes(provider):
    parts = {"role": "user", "content": [{"type": "text", "text": "Read."}, {"type": "file", "file": PDF}]}
    assert call(provider, MODELS[provider], {"messages": [parts]}).input_bound >= 600_000


ANSWERS = {
    "Anthropic": {
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "text", "text": "Fine."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}},
    },
    "OpenAI": {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "Fine.",
                    "reasoning_content": "Hm.",
                    "tool_calls": [
                        {
                            "id": "t1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
                        }
                    ],
                },
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 5,
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    },
}


@pytest.mark.parametrize("provider", ANSWERS)
def test_the_same_answer_is_the_same_completion_whoever_gives_it(provider):
    said = call(provider, MODELS[provider], REQUESTS["tools"]).said(ANSWERS[provider])
    made = ChatCompletion.model_validate(completion(Heading.new("m"), said, usage_of(said.usage, 1)))
    message = made.choices[0].message
    assert (message.content, message.reasoning_content) == ("Fine.", "Hm.")
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Bern"}
    assert made.choices[0].finish_reason == "tool_calls"
    assert (made.usage.total_tokens, made.usage.completion_tokens_details.reasoning_tokens) == (8, 2)


def test_usage_in_every_chunk_or_beside_the_last_is_heard():
    maker = call("OpenAI", GPT, REQUESTS["plain"]).chunk_maker(Heading.new("m"))
    delta = {"choices": [{"index": 0, "delta": {"content": "é"}, "finish_reason": None}], "usage": None}
    last = {"choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}]}
    chunks = [*maker.chunks("chunk", delta), *maker.chunks("chunk", last | {"usage": {"completion_tokens": 2}})]
    assert [ChatCompletionChunk.model_validate(chunk).choices[0].finish_reason for chunk in chunks] == [None, None]
    assert maker.last[0]["choices"][0]["finish_reason"] == "stop"
    assert (maker.usage.tokens.output, maker.output_bytes) == (2, 3)
