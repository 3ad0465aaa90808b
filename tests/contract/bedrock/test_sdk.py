"""An unmodified boto3 client is the judge: it cannot tell the stand-in from Bedrock."""

import json
import math

import pytest
from aiobotocore.session import get_session
from botocore import UNSIGNED
from botocore.exceptions import ClientError

SOURCES = """<source id="1">Employees get 25 days of paid leave each year. Unused days expire in March.</source>
<source id="2"># Remote work
You may work from home three days a week. Laptops are provided.</source>
"""
CITE = [{"text": "Answer from the sources only. Cite with [n] after each sentence."}]
WEATHER = {
    "tools": [
        {
            "toolSpec": {
                "name": "get_weather",
                "description": "Current weather for a city.",
                "inputSchema": {
                    "json": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
                },
            }
        }
    ]
}


def _text(answer):
    return answer["output"]["message"]["content"][0]["text"]


def _dot(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True))


def _embed(client, model, **body):
    return json.loads(client.invoke_model(modelId=model, body=json.dumps(body))["body"].read())


def test_converse_answers_from_the_sources_and_cites_them(client, ask):
    answer = client.converse(**ask(f"{SOURCES}\nHow many days of leave do employees get?", system=CITE))
    assert _text(answer) == "Employees get 25 days of paid leave each year. [1]"
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"]["totalTokens"] == answer["usage"]["inputTokens"] + answer["usage"]["outputTokens"]
    assert answer["metrics"]["latencyMs"] >= 0
    assert answer["ResponseMetadata"]["RequestId"]


def test_a_stream_carries_the_same_answer_and_usage_as_converse(client, ask):
    request = ask(f"{SOURCES}\nHow often can I work from home?", system=CITE)
    whole = client.converse(**request)
    events = list(client.converse_stream(**request)["stream"])
    assert "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e) == _text(whole)
    assert [next(iter(event)) for event in events[-3:]] == ["contentBlockStop", "messageStop", "metadata"]
    assert events[-1]["metadata"]["usage"] == whole["usage"]
    assert sum("contentBlockDelta" in event for event in events) > 2


def test_what_the_sources_do_not_hold_is_not_made_up(client, ask):
    answer = client.converse(**ask(f"{SOURCES}\nWhat is the capital of Mongolia?", system=CITE))
    assert "could not find" in _text(answer)
    assert "[" not in _text(answer)


def test_the_same_prompt_gives_the_same_answer(client, ask):
    request = ask(f"{SOURCES}\nTell me about laptops.", system=CITE)
    assert client.converse(**request)["output"] == client.converse(**request)["output"]


def test_max_tokens_ends_the_answer_with_the_right_reason(client, ask):
    answer = client.converse(**ask("Say: one two three four five six", inferenceConfig={"maxTokens": 3}))
    assert _text(answer) == "one two three"
    assert answer["stopReason"] == "max_tokens"
    assert answer["usage"]["outputTokens"] == 3


def test_a_stop_sequence_ends_the_answer_before_itself(client, ask):
    answer = client.converse(**ask("Say: one two three four", inferenceConfig={"stopSequences": ["three"]}))
    assert (_text(answer), answer["stopReason"]) == ("one two ", "stop_sequence")


def test_a_tool_is_called_its_result_used_and_then_the_turn_ends(client, ask):
    request = ask("What is the weather in Paris?", toolConfig=WEATHER)
    called = client.converse(**request)
    use = called["output"]["message"]["content"][0]["toolUse"]
    assert (called["stopReason"], use["name"], use["input"]) == ("tool_use", "get_weather", {"city": "Paris"})
    result = {"toolUseId": use["toolUseId"], "content": [{"text": "It is 21 degrees and sunny in Paris."}]}
    request["messages"] += [called["output"]["message"], {"role": "user", "content": [{"toolResult": result}]}]
    answered = client.converse(**request)
    assert (answered["stopReason"], _text(answered)) == ("end_turn", "It is 21 degrees and sunny in Paris.")


def test_a_streamed_tool_call_is_json_in_pieces(client, ask):
    events = list(client.converse_stream(**ask("What is the weather in Paris?", toolConfig=WEATHER))["stream"])
    start = next(event["contentBlockStart"]["start"]["toolUse"] for event in events if "contentBlockStart" in event)
    pieces = [e["contentBlockDelta"]["delta"]["toolUse"]["input"] for e in events if "contentBlockDelta" in e]
    assert start["name"] == "get_weather"
    assert json.loads("".join(pieces)) == {"city": "Paris"}


def test_a_tool_that_nobody_asked_for_is_not_called_unless_it_is_forced(client, ask):
    assert client.converse(**ask("Hello!", toolConfig=WEATHER))["stopReason"] == "end_turn"
    for choice in ({"any": {}}, {"tool": {"name": "get_weather"}}):
        forced = client.converse(**ask("Hello!", toolConfig=WEATHER | {"toolChoice": choice}))
        assert forced["stopReason"] == "tool_use"


def test_claude_reasons_first_when_it_is_told_to(client, ask):
    fields = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    request = ask("Say: hello", additionalModelRequestFields=fields)
    blocks = client.converse(**request)["output"]["message"]["content"]
    assert [next(iter(block)) for block in blocks] == ["reasoningContent", "text"]
    deltas = [e["contentBlockDelta"] for e in client.converse_stream(**request)["stream"] if "contentBlockDelta" in e]
    assert {delta["contentBlockIndex"] for delta in deltas} == {0, 1}
    assert "signature" in [d for d in deltas if d["contentBlockIndex"] == 0][-1]["delta"]["reasoningContent"]


def test_a_cache_point_is_written_once_and_read_from_then_on(client, ask):
    system = [{"text": "A rule of this house. " * 400}, {"cachePoint": {"type": "default"}}]
    first = client.converse(**ask("Say: yes", system=system))["usage"]
    second = client.converse(**ask("Say: no, thank you", system=system))["usage"]
    assert first["cacheReadInputTokens"] == 0
    assert first["cacheWriteInputTokens"] > 1024
    assert (second["cacheReadInputTokens"], second["cacheWriteInputTokens"]) == (first["cacheWriteInputTokens"], 0)
    assert second["inputTokens"] < 20
    assert client.converse(**ask("Say: yes", "us." + ask("")["modelId"], system=system))["usage"][
        "cacheReadInputTokens"
    ]


def test_a_short_prefix_and_a_model_without_a_cache_are_treated_as_bedrock_does(client, ask):
    point = [{"text": "Short."}, {"cachePoint": {"type": "default"}}]
    assert client.converse(**ask("Say: yes", system=point))["usage"]["cacheWriteInputTokens"] == 0
    with pytest.raises(client.exceptions.AccessDeniedException):
        client.converse(**ask("Say: yes", "meta.llama3-8b-instruct-v1:0", system=point))


@pytest.mark.parametrize(
    "model",
    [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "global.anthropic.claude-haiku-5-5",
        "amazon.nova-2-lite-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/mi1dadi0g15f",
    ],
)
def test_every_way_to_name_a_model_is_understood(client, ask, bedrock, model):
    assert _text(client.converse(**ask("Say: hello", model))) == "hello"
    assert bedrock.billed(model)["calls"] == 1


def test_a_retired_model_and_an_unknown_one_raise_the_sdks_own_exceptions(client, ask):
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.converse(**ask("hi", "anthropic.claude-v1"))
    with pytest.raises(client.exceptions.ValidationException, match="model identifier is invalid"):
        client.converse_stream(**ask("hi", "us.does-not-exist-model-v1:0"))
    with pytest.raises(client.exceptions.ValidationException, match="doesn't support the model"):
        client.converse(**ask("hi", "amazon.titan-embed-text-v2:0"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user", "content": [{"text": ""}]}]}, "is blank"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}] * 2}, "alternate"),
        ({"inferenceConfig": {"temperature": 1.5}}, "temperature"),
        ({"modelId": "anthropic.claude-opus-5-5", "inferenceConfig": {"temperature": 0.5}}, "not supported"),
        (
            {"messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "x", "content": []}}]}]},
            "exceeds the number of toolUse",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"text": "hi"}]},
                    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "x", "name": "t", "input": {}}}]},
                ]
            },
            "toolConfig field must be defined",
        ),
    ],
)
def test_a_request_that_bedrock_would_refuse_is_refused(client, ask, change, sentence):
    with pytest.raises(client.exceptions.ValidationException, match=sentence):
        client.converse(**(ask("hi") | change))


@pytest.mark.parametrize("dimensions", [256, 512, 1024])
def test_titan_embeds_in_every_width_with_the_same_angles(client, titan, dimensions):
    leave, days, port = (
        _embed(client, titan, inputText=text, dimensions=dimensions)["embedding"]
        for text in ("How much holiday do I get?", "vacation days a year", "the server listens on port 80")
    )
    assert len(leave) == dimensions
    assert math.isclose(math.hypot(*leave), 1, rel_tol=1e-4)
    assert _dot(leave, days) > _dot(leave, port) + 0.1
    narrow = [_embed(client, titan, inputText=t, dimensions=256)["embedding"] for t in ("one thing", "another thing")]
    wide = [
        _embed(client, titan, inputText=t, dimensions=dimensions)["embedding"] for t in ("one thing", "another thing")
    ]
    assert math.isclose(_dot(*narrow), _dot(*wide), rel_tol=1e-4)


def test_titan_says_what_it_billed_in_body_and_header(client, bedrock, titan):
    answer = client.invoke_model(modelId=titan, body=json.dumps({"inputText": "three short words"}))
    counted = json.loads(answer["body"].read())["inputTextTokenCount"]
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-input-token-count"] == str(counted) == "3"
    assert bedrock.billed(titan)["inputTokens"] == counted


@pytest.mark.parametrize(
    "body", [{}, {"inputText": ""}, {"inputText": "a", "dimensions": 300}, {"inputText": "a" * 50_001}]
)
def test_titan_refuses_a_malformed_body(client, titan, body):
    with pytest.raises(client.exceptions.ValidationException):
        _embed(client, titan, **body)


def test_cohere_embeds_and_reranks(client):
    model = "cohere.embed-english-v3"
    vectors = _embed(client, model, texts=["a", "b"], input_type="search_document")["embeddings"]
    assert [len(vector) for vector in vectors] == [1024, 1024]
    documents = ["The cafeteria opens at noon.", "Vacation: 25 days a year.", "Parking is free."]
    ranked = _embed(client, "cohere.rerank-v3-5:0", query="how many vacation days", documents=documents, top_n=2)
    assert ranked["results"][0]["index"] == 1
    assert len(ranked["results"]) == 2


def test_count_tokens_agrees_with_what_is_billed(client, ask):
    request = ask(f"{SOURCES}\nHow often?", system=CITE)
    converse = {key: request[key] for key in ("messages", "system")}
    counted = client.count_tokens(modelId=request["modelId"], input={"converse": converse})["inputTokens"]
    assert counted == client.converse(**request)["usage"]["inputTokens"]


def test_what_is_billed_can_be_asked_by_the_metadata_of_the_requests(bedrock, client, haiku):
    def converse(**more):
        messages = [{"role": "user", "content": [{"text": "Say: one two three"}]}]
        return client.converse(modelId=haiku, messages=messages, **more)["usage"]

    red, blue = {"colour": "red", "size": "1"}, {"colour": "blue"}
    said = [converse(requestMetadata=colour) for colour in (red, red, blue)]
    converse()
    sums = bedrock.control("GET", "/_local/billed?metadata=colour")["metadata"]
    assert {colour: account["calls"] for colour, account in sums.items()} == {"red": 2, "blue": 1}
    assert sums["red"]["inputTokens"] == said[0]["inputTokens"] + said[1]["inputTokens"]
    assert sums["blue"]["outputTokens"] == said[2]["outputTokens"]


def test_what_is_billed_is_the_sum_of_what_the_answers_said(bedrock, client, ask, haiku):
    whole = client.converse(**ask("Say: one two three"))["usage"]
    *_, last = client.converse_stream(**ask("What is the weather in Paris?", toolConfig=WEATHER))["stream"]
    streamed = last["metadata"]["usage"]
    assert bedrock.billed(haiku) == {
        "calls": 2,
        "inputTokens": whole["inputTokens"] + streamed["inputTokens"],
        "outputTokens": whole["outputTokens"] + streamed["outputTokens"],
        "cacheReadTokens": 0,
        "cacheWriteTokens": 0,
    }


def test_tokens_never_exceed_the_bytes_of_what_was_sent(client, ask):
    text = "Wörter, 1234567890 und 🙂🙂 — a!b@c#"
    assert client.converse(**ask(text))["usage"]["inputTokens"] <= len(text.encode())


async def test_aiobotocore_streams_as_well(bedrock, ask):
    session = get_session()
    session.set_credentials("AKIDEXAMPLE", "secret")
    async with session.create_client("bedrock-runtime", region_name="us-east-1", endpoint_url=bedrock.url) as client:
        answer = await client.converse_stream(**ask("Say: hello there"))
        events = [event async for event in answer["stream"]]
    assert "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e) == "hello there"


def test_an_unsigned_request_is_refused(bedrock, ask):
    client = bedrock.client(signature_version=UNSIGNED)
    with pytest.raises(ClientError) as refused:
        client.converse(**ask("hi"))
    client.close()
    assert refused.value.response["Error"]["Code"] == "MissingAuthenticationTokenException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_with_accepted_keys_signatures_are_checked_to_the_byte(start, ask):
    with start(LOAM_ACCEPT_KEYS="AKIDEXAMPLE:wJalrXUtnFEMI,token") as strict:
        client = strict.client()
        arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"
        assert _text(client.converse(**ask("Say: hello", arn))) == "hello"
        client.close()
    with start(LOAM_ACCEPT_KEYS="AKIDEXAMPLE:another-secret,token") as strict:
        client = strict.client()
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            client.converse(**ask("hi"))
        client.close()
        body = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
        path = "/model/amazon.nova-lite-v1%3A0/converse"
        assert strict.post(path, body, Authorization="Bearer token")[0] == 200
        status, headers, _ = strict.post(path, body, Authorization="Bearer other")
        assert (status, headers["x-amzn-errortype"]) == (403, "UnrecognizedClientException")
