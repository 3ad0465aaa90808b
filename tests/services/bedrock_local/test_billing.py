"""What a request is said to cost."""

import pytest

from loam_bedrock_local.converse import Usage
from loam_bedrock_local.counting import input_tokens
from loam_bedrock_local.errors import AccessDeniedError, ResourceNotFoundError, ValidationError
from loam_bedrock_local.models import resolve

RULES = "A rule of this house. " * 400


def _cached(ttl, *texts):
    blocks = []
    for text in texts:
        blocks += [{"text": text}, {"cachePoint": {"type": "default", "ttl": ttl}}]
    return blocks


async def test_a_cached_prefix_is_written_read_and_forgotten_after_its_time(engine, clock):
    body = {"messages": [{"role": "user", "content": [{"text": "Say: yes"}]}], "system": _cached("5m", RULES)}
    model = resolve("anthropic.claude-sonnet-5-5")

    async def usage():
        return (await engine.complete(model, body)).usage

    first, second = await usage(), await usage()
    assert (first.cache_read, first.written_by_ttl) == (0, (("5m", first.cache_write),))
    assert (second.cache_read, second.cache_write) == (first.cache_write, 0)
    clock.now += 299
    assert (await usage()).cache_read
    clock.now += 301
    assert (await usage()).cache_write == first.cache_write


async def test_a_longer_prefix_reads_the_shorter_one_and_writes_the_rest(engine):
    model = resolve("amazon.nova-lite-v1:0")
    message = {"messages": [{"role": "user", "content": [{"text": "Say: yes"}]}]}
    short = (await engine.complete(model, message | {"system": _cached("1h", RULES)})).usage
    long = (await engine.complete(model, message | {"system": _cached("1h", RULES, "And more. " * 50)})).usage
    assert long.cache_read == short.cache_write
    assert long.written_by_ttl == (("1h", long.cache_write),)
    assert 0 < long.cache_write < short.cache_write


async def test_a_model_without_a_prompt_cache_says_so(engine):
    body = {"messages": [{"role": "user", "content": [{"text": "x"}, {"cachePoint": {"type": "default"}}]}]}
    with pytest.raises(AccessDeniedError):
        await engine.complete(resolve("mistral.mistral-large-2402-v1:0"), body)


async def test_a_cache_point_costs_nothing_itself(engine):
    content = [{"text": "Say: yes"}, {"cachePoint": {"type": "default"}}]
    body = {"messages": [{"role": "user", "content": content}]}
    assert (await engine.complete(resolve("amazon.nova-lite-v1:0"), body)).usage.input == input_tokens(
        {"messages": [{"role": "user", "content": content[:1]}]}
    )


def test_the_total_is_the_sum_of_all_four():
    assert Usage(3, 4, 5, 6).render()["totalTokens"] == 18


def test_tools_documents_and_images_count_and_none_beyond_its_bytes():
    tool = {"toolSpec": {"name": "a", "description": "b c", "inputSchema": {"json": {"type": "object"}}}}
    image = {"image": {"format": "png", "source": {"bytes": "aGVsbG8="}}}
    document = {"document": {"name": "n", "format": "txt", "source": {"bytes": "b25lIHR3byB0aHJlZQ=="}}}
    plain = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    rich = {
        "messages": [{"role": "user", "content": [{"text": "hi"}, image, document]}],
        "toolConfig": {"tools": [tool]},
    }
    assert input_tokens(plain) == 1
    assert input_tokens({"messages": [], "system": [{"cachePoint": {"type": "default"}}]}) == 0
    assert input_tokens({"messages": [{"role": "user", "content": [document]}]}) == 3
    assert 1 + 3 < input_tokens(rich) < 1 + 6 + 13 + len(str(tool))


def test_unknown_and_retired_models_are_told_apart():
    with pytest.raises(ValidationError):
        resolve("nobody.nothing-v1:0")
    with pytest.raises(ResourceNotFoundError):
        resolve("amazon.titan-text-express-v1")
