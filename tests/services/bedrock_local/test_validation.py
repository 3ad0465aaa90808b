"""Whatever comes, the answer is an answer or an error that Bedrock has: never a crash."""

import copy
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loam_bedrock_local.answer import Answerer
from loam_bedrock_local.cache import PromptCache
from loam_bedrock_local.embedder import Embedder
from loam_bedrock_local.engine import Engine
from loam_bedrock_local.errors import BedrockError, ValidationError
from loam_bedrock_local.invoke import Invoker
from loam_bedrock_local.models import resolve

EMBEDDER = Embedder()
SOUND = {
    "messages": [
        {
            "role": "user",
            "content": [{"text": "hi"}, {"document": {"name": "d", "format": "txt", "source": {"bytes": "aGk="}}}],
        },
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "1", "name": "t", "input": {}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [{"json": [1]}, {"text": "x"}]}}]},
    ],
    "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
    "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "stopSequences": ["x"]},
    "toolConfig": {
        "tools": [{"toolSpec": {"name": "t", "description": "d", "inputSchema": {"json": {"type": "object"}}}}],
        "toolChoice": {"tool": {"name": "t"}},
    },
    "additionalModelRequestFields": {"thinking": {"type": "enabled"}},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def _places(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _places(child, (*path, key))


def _changed(body, path, value):
    body = copy.deepcopy(body)
    holder = body
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return body


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([path for path in _places(SOUND) if path]), JSON)
async def test_a_converse_request_with_anything_anywhere_is_answered_or_refused(path, value):
    engine = Engine(Answerer(EMBEDDER), PromptCache())
    with suppress(BedrockError):
        completion = await engine.complete(
            resolve("anthropic.claude-3-haiku-20240307-v1:0"), _changed(SOUND, path, value)
        )
        assert completion.usage.output <= 5 or path[0] == "inferenceConfig"


@given(
    st.sampled_from(["amazon.titan-embed-text-v2:0", "cohere.embed-v4:0", "cohere.rerank-v3-5:0"]),
    st.dictionaries(
        st.sampled_from(["inputText", "dimensions", "texts", "input_type", "query", "documents", "top_n", "normalize"]),
        JSON,
    ),
)
def test_an_invoke_request_with_anything_in_it_is_answered_or_refused(model, body):
    with suppress(BedrockError):
        answer, counted = Invoker(EMBEDDER).invoke(resolve(model), body)
        assert answer
        assert counted >= 0


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("system",), "Be brief.", "system"),
        (("messages", 0, "role"), "system", "messages.0.role"),
        (("messages", 0, "content", 0, "text"), 7, "messages.0.content.0.text"),
        (("toolConfig", "tools", 0, "toolSpec"), {}, "toolConfig.tools.0.toolSpec.name"),
        (("toolConfig", "toolChoice", "tool", "name"), "other", "other"),
        (("inferenceConfig", "maxTokens"), True, "inferenceConfig.maxTokens"),
    ],
)
async def test_a_refusal_names_the_field(engine, path, value, named):
    with pytest.raises(ValidationError, match=named):
        await engine.complete(resolve("amazon.nova-lite-v1:0"), _changed(SOUND, path, value))
