"""One Idempotency-Key many times at once: one provider call, one entry, one answer, whatever becomes of the first."""

import asyncio
import json
import time
from collections import Counter

import aiohttp
import pytest

from ..services.gateway._platform import say

TWINS = 50
ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY posted_at"


def asks(session, replica, key, body, value="twin"):
    headers = {"authorization": f"Bearer {key}", "idempotency-key": value}
    return session.post(f"{replica.public}/v1/chat/completions", json=body, headers=headers)


async def answer_to(session, replica, key, body, value="twin"):
    """Status, body, and what it is said to have cost."""
    async with asks(session, replica, key, body, value) as response:
        return response.status, await response.text(), response.headers.get("x-loam-cost-usd")


def body_of(tenant, **more):
    return {"model": "haiku", "messages": say(f"Say: {tenant.name} one two three")} | more


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


@pytest.mark.parametrize("stream", [False, True])
async def test_fifty_at_once_over_two_gateways_are_one_call_one_entry_and_one_answer(
    bed, tenant, database, session, stream
):
    bed.bedrock.play({"contains": tenant.name, "fault": {"delayMs": 300}})
    key, body = tenant.new_key(), body_of(tenant, stream=stream)
    answers = await asyncio.gather(
        *(answer_to(session, bed.replicas[number % 2], key, body) for number in range(TWINS))
    )
    assert {(status, text) for status, text, _cost in answers} == {(200, answers[0][1])}
    [entry] = await database.fetch(ENTRIES, tenant.name)
    assert entry["outcome"] == "complete"
    assert bed.billed_by("loam-tenant")[tenant.name]["calls"] == 1
    assert Counter(cost == "0" for _status, _text, cost in answers)[True] == TWINS - 1
    conflict = await answer_to(session, bed.replicas[2], key, body_of(tenant, stream=stream, max_tokens=99))
    assert conflict[0] == 409
    assert json.loads(conflict[1])["error"]["code"] == "idempotency_conflict"


async def test_when_the_first_is_cut_another_is_made_in_its_place_and_all_others_get_its_answer(
    bed, tenant, database, session
):
    bed.bedrock.play({"contains": tenant.name, "fault": {"eventDelayMs": 30, "text": "one two three " * 20}})
    key, body = tenant.new_key(), body_of(tenant, stream=True)
    async with asks(session, bed.replicas[0], key, body) as first:
        await first.content.readline()
        waiting = [
            asyncio.create_task(answer_to(session, bed.replicas[number % 2], key, body)) for number in range(TWINS)
        ]
        await asyncio.sleep(0.2)
        first.close()
    answers = await asyncio.gather(*waiting)
    assert {(status, text) for status, text, _cost in answers} == {(200, answers[0][1])}
    assert answers[0][1].endswith("data: [DONE]\n\n")
    entries = await database.fetch(ENTRIES, tenant.name)
    assert [entry["outcome"] for entry in entries] == ["cut", "complete"]
    assert bed.billed_by("loam-tenant")[tenant.name]["calls"] == 2


async def test_when_the_gateway_of_the_first_is_killed_its_twin_is_served_once_the_hold_has_expired(
    bed, tenant, database, session
):
    slow = {"eventDelayMs": 500, "text": "one two three " * 20}
    bed.bedrock.play({"contains": tenant.name, "times": 1, "fault": slow})
    key, body = tenant.new_key(), body_of(tenant, stream=True)
    async with asks(session, bed.replicas[2], key, body) as first:
        await first.content.readline()
        twin = asyncio.create_task(answer_to(session, bed.replicas[0], key, body))
        began = time.monotonic()
        await bed.restart_replica(2)
        with pytest.raises(aiohttp.ClientError):
            await first.read()
    status, _text, _cost = await twin
    assert status == 200
    assert time.monotonic() - began < bed.hold_seconds + 10
    entries = await database.fetch(ENTRIES, tenant.name)
    assert [(entry["outcome"], entry["estimated"]) for entry in entries] == [("expired", True), ("complete", False)]
    assert entries[0]["cost"] == entries[0]["held"]


async def test_a_failure_is_not_kept_so_the_same_key_may_try_again(bed, tenant, database, session):
    bed.bedrock.play({"contains": tenant.name, "times": 2, "fault": {"error": "500"}})
    key, body = tenant.new_key(), body_of(tenant)
    assert (await answer_to(session, bed.replicas[0], key, body))[0] == 502
    assert (await answer_to(session, bed.replicas[1], key, body))[0] == 200
    entries = await database.fetch(ENTRIES, tenant.name)
    assert [(entry["outcome"], entry["cost"] > 0) for entry in entries] == [("failed", False), ("complete", True)]


async def test_keys_of_two_tenants_do_not_meet(bed, tenant, session):
    other = bed.replicas[0].new_tenant()
    try:
        body = body_of(tenant)
        mine, theirs = [
            await answer_to(session, bed.replicas[0], key, body) for key in (tenant.new_key("a"), other.new_key("a"))
        ]
        assert mine[1] != theirs[1]
        assert theirs[2] == mine[2] != "0"
    finally:
        other.close()
