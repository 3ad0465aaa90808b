"""Anthropic and OpenAI-compatible servers answer as Bedrock does: same request, same headers, same ledger."""

import base64
import json

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletion

from .._servers.providers import HIDDEN, SIGNATURE, TEXT, THOUGHT, Fault, stand_in
from ._platform import eventually, say

PRICE = {
    "inputPerMillion": "1",
    "outputPerMillion": "5",
    "cacheReadPerMillion": "0.1",
    "cacheWritePerMillion": "1.25",
}
ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY held_at"
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
PDF = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.4").decode()
NOTE = "data:text/plain;base64," + base64.b64encode("Zürich".encode()).decode()
PROVIDERS = ("claude-direct", "gpt")


@pytest.fixture(scope="module")
def elsewhere():
    with stand_in() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def routes(gateway, elsewhere):
    chat = {"capabilities": ["Chat", "Stream", "Tools"], "price": PRICE, "maxOutputTokens": 1000}
    claude = {"provider": "Anthropic", "modelId": "claude-sonnet-4-6", "baseUrl": elsewhere.anthropic}
    gpt = {"provider": "OpenAI", "modelId": "gpt-4.1-mini", "baseUrl": elsewhere.openai}
    gateway.model("claude-direct", chat | claude | {"uid": "claude-direct", "credential": "platform-anthropic"})
    gateway.model("gpt", chat | gpt | {"uid": "gpt", "credential": "platform-openai"})
    gateway.model("gpt-keyless", chat | gpt | {"uid": "gpt-keyless"})
    embed = {"uid": "small", "capabilities": ["Embed"], "price": {"inputPerMillion": "0.02"}, "dimensions": 4}
    gateway.model("small", gpt | embed | {"modelId": "text-embedding-3-small", "credential": "platform-openai"})
    gateway.model("haiku-or-gpt", _haiku("haiku-or-gpt", ["gpt", "claude-direct"]))


def _haiku(name, fallbacks):
    return {
        "uid": name,
        "provider": "Bedrock",
        "modelId": "anthropic.claude-3-haiku-20240307-v1:0",
        "capabilities": ["Chat", "Stream", "Tools"],
        "price": {"inputPerMillion": "0.25", "outputPerMillion": "1.25"},
        "fallbacks": fallbacks,
    }


MODELS = ["haiku", "embedder", "claude-direct", "gpt", "gpt-keyless", "small", "haiku-or-gpt"]


@pytest.fixture
def play(elsewhere):
    """What the stand-in was asked by this test alone, and its faults."""
    elsewhere.play.asked.clear()
    elsewhere.play.faults.clear()
    elsewhere.play.hung_up = 0
    return elsewhere.play


@pytest.fixture
def caller(gateway):
    made = gateway.new_tenant(models=MODELS, budget={"monthlyUsd": "10"})
    yield made
    made.close()


def create(tenant, model, messages=None, **more):
    return tenant.client().chat.completions.create(model=model, messages=messages or say(f"hi {tenant.name}"), **more)


def test_the_stand_ins_are_what_the_providers_own_clients_expect(elsewhere):
    with anthropic.Anthropic(api_key="k", base_url=elsewhere.anthropic) as claude:
        messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        asked = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": messages, "thinking": {"type": "adaptive"}}
        whole = claude.messages.create(**asked)
        with claude.messages.stream(**asked) as stream:
            said = [block.to_dict(exclude_none=True) for block in stream.get_final_message().content]
        assert said == [block.to_dict(exclude_none=True) for block in whole.content]
    with openai.OpenAI(api_key="k", base_url=elsewhere.openai) as gpt:
        assert gpt.chat.completions.create(model="m", messages=say("hi")).choices[0].message.content == TEXT


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_plain_answer_is_priced_by_the_usage_that_the_provider_tells(model, caller, play, query):
    answer = caller.client().chat.completions.with_raw_response.create(model=model, messages=say("hi"))
    told = ChatCompletion.model_validate_json(answer.text)
    assert told.choices[0].message.content == TEXT
    assert told.choices[0].finish_reason == "stop"
    [entry] = query(ENTRIES, caller.name)
    tokens = (entry["input_tokens"], entry["output_tokens"], entry["cache_read_tokens"])
    prompt = told.usage.prompt_tokens_details.cached_tokens
    assert tokens == (told.usage.prompt_tokens - prompt, 12, prompt)
    assert entry["cost"] == tokens[0] * 1000 + 12 * 5000 + tokens[2] * 100
    assert not entry["estimated"]
    assert float(answer.headers["x-loam-cost-usd"]) == pytest.approx(entry["cost"] / 1e9)
    assert answer.headers["x-loam-model"] == model
    assert play.asked[0].key.endswith("platform-anthropic" if model == "claude-direct" else "platform-openai")


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_stream_says_the_same_and_leaves_one_entry(model, caller, play, query):
    chunks = list(create(caller, model, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == TEXT
    assert chunks[-1].usage.completion_tokens == 12
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.model for chunk in chunks} == {model}
    [entry] = query(ENTRIES, caller.name)
    assert (entry["output_tokens"], entry["estimated"], entry["outcome"]) == (12, False, "complete")
    assert entry["provider"] == ("Anthropic" if model == "claude-direct" else "OpenAI")


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_stream_that_comes_in_crumbs_says_the_same(model, caller, play):
    play.faults[:] = [Fault(crumb=5)]
    chunks = list(create(caller, model, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", PROVIDERS)
def test_missing_usage_is_estimated_and_marked_and_zero_usage_costs_nothing(model, stream, caller, play, query):
    zero = {"input_tokens": 0, "output_tokens": 0} if model == "claude-direct" else {"prompt_tokens": 0}
    zero |= {} if model == "claude-direct" else {"completion_tokens": 0, "total_tokens": 0}
    play.faults[:] = [Fault(usage=None), Fault(usage=zero)]
    for text in ("one", "two"):
        answer = create(caller, model, say(text), stream=stream)
        assert not stream or list(answer)
    missing, nothing = query(ENTRIES, caller.name)
    assert missing["estimated"]
    assert missing["cost"] > 12 * 5000
    assert missing["output_tokens"] >= len(TEXT)
    assert (nothing["cost"], nothing["estimated"], nothing["outcome"]) == (0, False, "complete")


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_stream_that_the_provider_cuts_is_settled_once_by_a_bound(model, caller, play, query):
    play.faults[:] = [Fault(cut_after=5)]
    with pytest.raises(openai.APIError):
        list(create(caller, model, stream=True))
    eventually(lambda: query(ENTRIES, caller.name), "the entry is there")
    [entry] = query(ENTRIES, caller.name)
    assert (entry["outcome"], entry["estimated"]) == ("cut", True)


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_client_that_hangs_up_ends_the_providers_call(model, caller, play, query):
    play.faults[:] = [Fault(delay=0.01)]
    with create(caller, model, stream=True) as stream:
        next(iter(stream))
    eventually(lambda: query(ENTRIES, caller.name), "the entry is there")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.InternalServerError),
        (429, openai.RateLimitError),
        (529, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("model", PROVIDERS)
def test_a_refused_call_costs_nothing_and_is_told_in_loams_words(model, status, error, caller, play, query):
    play.faults[:] = [Fault(status=status, times=9)]
    with pytest.raises(error) as caught:
        create(caller, model)
    # What is said about a credential is not for those who do not hold it.
    assert ("played" in caught.value.message) is (status != 401)
    assert status != 429 or caught.value.response.headers["retry-after"] == "7"
    assert caught.value.body["providerRequestId"].startswith("req_")
    assert [entry["cost"] for entry in query(ENTRIES, caller.name)] == [0]


@pytest.mark.parametrize("model", PROVIDERS)
def test_tools_images_documents_and_results_reach_the_provider(model, caller, play):
    called = create(caller, model, tools=[WEATHER], tool_choice="required").choices[0].message
    assert json.loads(called.tool_calls[0].function.arguments) == {"city": "Bern"}
    parts = [
        {"type": "text", "text": "See.", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
        {"type": "file", "file": {"filename": "n.txt", "file_data": NOTE}},
    ]
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "12 degrees"}
    history = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    said = create(caller, model, [*history, called.model_dump(exclude_none=True), result], tools=[WEATHER], stop=["X"])
    assert said.choices[0].message.content == TEXT
    sent = play.asked[-1].body
    assert (sent["stop_sequences"] if model == "claude-direct" else sent["stop"]) == ["X"]
    if model == "claude-direct":
        assert sent["system"] == [{"type": "text", "text": "Be brief."}]
        assert [block["type"] for block in sent["messages"][0]["content"]] == ["text", "image", "document", "document"]
        assert sent["messages"][0]["content"][3]["source"]["data"] == "Zürich"
        assert said.usage.prompt_tokens_details.cached_tokens == 100
    else:
        assert sent["messages"][1]["content"][2] == parts[2]


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_json_schema_is_kept_natively_where_the_model_can(model, caller, play):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": schema}}
    create(caller, model, response_format=wanted)
    sent = play.asked[-1].body
    native = {"format": {"type": "json_schema", "schema": schema}}
    assert (sent["output_config"] == native) if model == "claude-direct" else (sent["response_format"] == wanted)
    loose = wanted | {"json_schema": {"name": "place", "schema": schema}}
    answer = create(caller, model, response_format=loose).choices[0]
    assert json.loads(answer.message.content) == {"city": "Bern"}
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_comes_with_what_the_next_turn_needs_to_give_it_back(stream, caller, play):
    answer = create(caller, "claude-direct", reasoning_effort="high", stream=stream)
    assert play.asked[0].body["output_config"] == {"effort": "high"}
    if stream:
        deltas = [chunk.choices[0].delta for chunk in answer if chunk.choices]
        thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
        pieces = [detail for delta in deltas for detail in getattr(delta, "reasoning_details", None) or ()]
        assert thought == THOUGHT
        assert [piece.get("signature") or piece.get("data") for piece in pieces] == [None, SIGNATURE, HIDDEN]
        return
    message = answer.choices[0].message
    assert message.reasoning_content == THOUGHT
    create(caller, "claude-direct", [*say("hi"), message.model_dump(exclude_none=True), *say("and?")])
    given_back = play.asked[1].body["messages"][1]["content"]
    assert given_back[0] == {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}
    assert given_back[1] == {"type": "redacted_thinking", "data": HIDDEN}


def test_a_budget_that_the_bound_does_not_fit_is_enough_when_what_anthropic_counts_fits(caller, query):
    text = f"{caller.name} " + "understanding " * 1000
    caller.put(models=MODELS, budget={"monthlyUsd": f"{len(text) * 1250 / 2 / 1e9:.9f}"})
    assert create(caller, "claude-direct", say(text), max_tokens=64).choices[0].message.content == TEXT
    [entry] = query(ENTRIES, caller.name)
    assert entry["cost"] <= entry["held"] <= len(text) * 1250 / 2


def test_embeddings_come_in_the_order_of_the_texts(caller, play, query):
    answer = caller.client().embeddings.create(model="small", input=["a", "bbb", "cc"], encoding_format="float")
    assert [vector.embedding for vector in answer.data] == [[1.0] * 4, [3.0] * 4, [2.0] * 4]
    [entry] = query(ENTRIES, caller.name)
    assert (entry["kind"], entry["input_tokens"]) == ("embedding", answer.usage.prompt_tokens)


def test_an_own_key_wins_costs_nothing_and_is_tagged(gateway, play, query):
    own = gateway.new_tenant(
        models=MODELS,
        budget={"monthlyUsd": "0"},
        providerCredentials=[{"provider": "Anthropic", "secret": "own-key"}],
    )
    assert create(own, "claude-direct").choices[0].message.content == TEXT
    assert play.asked[0].key == "own-key"
    [entry] = query(ENTRIES, own.name)
    assert (entry["cost"], entry["byok"], entry["output_tokens"]) == (0, True, 12)
    own.close()


def test_an_own_key_never_falls_back_to_the_platforms(gateway, play, query):
    gateway.model(
        "claude-or-gpt",
        {
            "uid": "claude-or-gpt",
            "provider": "Anthropic",
            "modelId": "claude-haiku-4-5",
            "capabilities": ["Chat"],
            "price": PRICE,
            "baseUrl": "http://127.0.0.1:9",
            "credential": "platform-anthropic",
            "fallbacks": ["gpt"],
        },
    )
    own = gateway.new_tenant(
        models=[*MODELS, "claude-or-gpt"], providerCredentials=[{"provider": "Anthropic", "secret": "own-key"}]
    )
    with pytest.raises(openai.InternalServerError):
        create(own, "claude-or-gpt")
    assert play.asked == []
    own.put(models=[*MODELS, "claude-or-gpt"])
    assert create(own, "claude-or-gpt").choices[0].message.content == TEXT
    assert [asked.key for asked in play.asked] == ["Bearer platform-openai"]
    own.close()


def test_a_server_of_ones_own_may_ask_for_no_key(caller, play):
    assert create(caller, "gpt-keyless").choices[0].message.content == TEXT
    assert play.asked[0].key == ""


@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_of_another_provider_gets_the_request_in_its_own_words(stream, caller, play, faults, query):
    faults({"contains": caller.name, "fault": {"error": "throttle"}})
    answer = create(caller, "haiku-or-gpt", stream=stream)
    said = (
        answer.choices[0].message.content if not stream else "".join(c.choices[0].delta.content or "" for c in answer)
    )
    assert said == TEXT
    assert play.asked[0].body["model"] == "gpt-4.1-mini"
    served = query(ENTRIES, caller.name)[-1]
    assert (served["model"], served["provider"], served["outcome"]) == ("gpt", "OpenAI", "complete")


def test_a_providers_credential_is_nowhere_in_the_log_or_the_answers(gateway, caller):
    create(caller, "gpt")
    assert "platform-openai" not in gateway.log()
    assert "platform-openai" not in gateway.get(f"/tenants/{caller.name}").text
