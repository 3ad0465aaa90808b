"""The cache's own rules: which requests are the same, who waits for whom, and how an answer becomes its stream."""

import asyncio
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loam_gateway.cache.entry import LARGEST, Cached
from loam_gateway.cache.flights import Flights, Role
from loam_gateway.cache.key import key_of
from loam_gateway.cache.policy import CachePolicy
from loam_gateway.cache.twin import Listener, chunks_of
from loam_gateway.completions.reply import Heading, message_of, reasoning_encrypted, reasoning_text, tool_call
from loam_gateway.completions.request import ChatRequest
from loam_gateway.vault import Vault

KEY = b"k" * 32
DESERTED: list[bytes] = []


def waits(flights: Flights[str], seconds: float = 5) -> "asyncio.Task[str | Role]":
    return asyncio.create_task(flights.wait(KEY, seconds))


async def some_wait(flights: Flights[str], number: int) -> "list[asyncio.Task[str | Role]]":
    assert flights.lead(KEY)
    assert not flights.lead(KEY)
    waiting = [waits(flights) for _ in range(number)]
    await asyncio.sleep(0)
    return waiting


async def test_what_the_leader_brings_is_everybodys() -> None:
    flights: Flights[str] = Flights(DESERTED.append)
    waiting = await some_wait(flights, 3)
    flights.share(KEY, "answer")
    assert await asyncio.gather(*waiting) == ["answer"] * 3
    assert flights.lead(KEY)


async def test_a_leader_that_fails_hands_over_to_the_one_that_waited_longest() -> None:
    flights: Flights[str] = Flights(DESERTED.append)
    first, second = await some_wait(flights, 2)
    flights.hand_over(KEY)
    assert await first is Role.LEADS
    assert not flights.lead(KEY)
    flights.share(KEY, "answer")
    assert await second == "answer"


async def test_a_lead_is_not_lost_with_the_one_that_it_was_handed_to() -> None:
    flights: Flights[str] = Flights(DESERTED.append)
    first, second, third = await some_wait(flights, 3)
    first.cancel()
    await asyncio.sleep(0)
    flights.hand_over(KEY)
    second.cancel()
    assert await third is Role.LEADS
    DESERTED.clear()
    flights.hand_over(KEY)
    assert DESERTED == [KEY]
    assert flights.lead(KEY)


async def test_a_lead_that_was_handed_to_one_who_went_away_is_nobodys_and_said_so() -> None:
    flights: Flights[str] = Flights(DESERTED.append)
    [only] = await some_wait(flights, 1)
    DESERTED.clear()
    flights.hand_over(KEY)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    assert DESERTED == [KEY]
    assert flights.lead(KEY)


async def test_an_answer_for_one_alone_lets_the_others_ask_for_their_own() -> None:
    flights: Flights[str] = Flights(DESERTED.append)
    waiting = await some_wait(flights, 2)
    flights.let_go(KEY)
    assert await asyncio.gather(*waiting) == [Role.ALONE] * 2


async def test_nobody_waits_longer_than_its_patience() -> None:
    flights: Flights[str] = Flights(DESERTED.append)
    [patient] = await some_wait(flights, 1)
    assert await flights.wait(KEY, 0.01) is Role.ALONE
    flights.share(KEY, "answer")
    assert await patient == "answer"


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields)


def test_a_key_depends_on_tenant_model_template_and_the_whole_request() -> None:
    keys = [
        key_of("uid", "route", "id", request()),
        key_of("other", "route", "id", request()),
        key_of("uid", "other", "id", request()),
        key_of("uid", "route", "other", request()),
        key_of("uid", "route", "id", request(), "t@1"),
        key_of("uid", "route", "id", request(), "t@2"),
        key_of("uid", "route", "id", request(max_tokens=1)),
        key_of("uid", "route", "id", request(messages=[{"role": "system", "content": "x"}])),
    ]
    assert len(set(keys)) == len(keys)


def test_a_key_does_not_depend_on_the_order_of_members_or_on_how_the_answer_is_delivered() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}}}
    turned = {"properties": {"b": {"type": "null"}, "a": {"type": "string"}}, "type": "object"}

    def with_tool(parameters: dict[str, Any], **more: Any) -> ChatRequest:
        return request(tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}], **more)

    one = key_of("uid", "route", "id", with_tool(schema))
    assert one == key_of("uid", "route", "id", with_tool(turned, stream=True, stream_options={"include_usage": True}))


@pytest.mark.parametrize(
    ("header", "seconds", "read"),
    [
        (None, 300, True),
        ("", 300, True),
        ("max-age=60", 300, True),
        ("no-cache", 300, False),
        ("No-Cache, foo", 300, False),
        ("max-age=0", 300, False),
        ("no-store", 0, False),
        ("no-cache, no-store", 0, False),
    ],
)
def test_cache_control_says_whether_to_read_and_to_keep(header: str | None, seconds: int, read: bool) -> None:
    policy = CachePolicy.of(header, 300)
    assert (policy.seconds, policy.read) == (seconds, read)


def test_an_answer_can_be_read_under_its_own_key_only_and_is_no_text_at_rest() -> None:
    vault, cached = (
        Vault(os.urandom(32)),
        Cached({"content": "secret"}, "stop", {"total_tokens": 3}, "m", 7, {"a": "b"}),
    )
    sealed = cached.sealed(vault, KEY)
    assert sealed is not None
    assert b"secret" not in sealed
    assert Cached.unsealed(vault, KEY, sealed) == cached
    assert Cached.unsealed(vault, b"j" * 32, sealed) is None
    assert Cached.unsealed(Vault(os.urandom(32)), KEY, sealed) is None


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    vault = Vault(os.urandom(32))
    assert Cached({"content": "x" * LARGEST}, "stop", {}, "m", 1).sealed(vault, KEY) is None
    listener = Listener(LARGEST)
    for chunk in chunks_of(Heading.new("m"), message_of(["x" * (LARGEST + 1)], [], []), "stop", None):
        listener.hear(chunk)
    assert listener.message() is None


texts = st.text(max_size=20)
tool_calls = st.builds(tool_call, texts, texts, st.dictionaries(texts, st.integers(0, 9), max_size=2))
details = st.builds(reasoning_text, texts, st.none() | texts) | st.builds(reasoning_encrypted, texts)
messages = st.builds(
    message_of, st.lists(texts, max_size=3), st.lists(tool_calls, max_size=3), st.lists(details, max_size=3), st.none()
)


@given(messages, st.sampled_from(["stop", "length", "tool_calls"]))
def test_a_stream_of_an_answer_says_the_answer(message: dict[str, Any], finish: str) -> None:
    listener = Listener(LARGEST)
    for chunk in chunks_of(Heading.new("m"), message, finish, {"total_tokens": 1}):
        listener.hear(chunk)
    assert (listener.message(), listener.finish) == (message, finish)


@given(st.lists(texts, min_size=1), st.lists(st.lists(texts, min_size=1), max_size=3))
def test_a_streamed_answer_is_put_together_from_its_pieces(pieces: list[str], arguments: list[list[str]]) -> None:
    def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    listener = Listener(LARGEST)
    for piece in pieces:
        listener.hear(chunk(content=piece))
    for index, parts in enumerate(arguments):
        function = {"name": "f", "arguments": ""}
        listener.hear(chunk(tool_calls=[{"index": index, "id": f"c{index}", "type": "function", "function": function}]))
        for part in parts:
            listener.hear(chunk(tool_calls=[{"index": index, "function": {"arguments": part}}]))
    assert listener.message() is None
    listener.hear(chunk("stop"))
    message = listener.message()
    assert message is not None
    assert message["content"] == ("".join(pieces) or None)
    said = [call["function"]["arguments"] for call in message.get("tool_calls", [])]
    assert said == ["".join(parts) for parts in arguments]
