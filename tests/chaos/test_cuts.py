"""However a call is cut, by whom and where: it is one entry, at a cost between what was billed and what was held."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from ..services.gateway._platform import say
from ._bed import Replica, replicas_running
from ._breaker import Breaker

INPUT_NANOS, OUTPUT_NANOS = 250, 1250
TEXT = "one two three four five six seven eight nine ten " * 6
AT_ONCE = 24

ENTRIES = "SELECT * FROM entries WHERE root_request_id = $1"
HELD = "SELECT sum(held) FROM accounts WHERE tenant = $1"


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


class Caller:
    """Sends requests of one tenant to one gateway, each with an id that the ledger and the provider know it by."""

    def __init__(self, session, replica, tenant):
        self._session = session
        self._url = f"{replica.public}/v1/chat/completions"
        self._key = tenant.new_key()
        self.tenant = tenant

    def ask(self, request_id, text="", **more):
        body = {"model": "haiku", "messages": say(f"{self.tenant.name} {request_id} {text}"), "max_tokens": 200} | more
        headers = {"authorization": f"Bearer {self._key}", "x-request-id": request_id}
        return self._session.post(self._url, json=body, headers=headers)


@pytest.fixture
def caller(session, bed, tenant):
    bed.bedrock.play({"contains": tenant.name, "fault": {"text": TEXT}})
    return Caller(session, bed.replicas[0], tenant)


async def at_once(works):
    """All of them, some at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(work):
        async with places:
            return await work

    return await asyncio.gather(*map(one, works))


async def the_entry(database, request_id):
    """The one entry of a request, once it is there."""
    async with asyncio.timeout(20):
        while not (found := await database.fetch(ENTRIES, request_id)):  # noqa: ASYNC110 - a gateway posts it
            await asyncio.sleep(0.02)
    [entry] = found
    return entry


async def checked(bed, database, tenant, request_ids):
    """The entries of requests: one each, within its bounds, and nothing stays held."""
    entries = [await the_entry(database, request_id) for request_id in request_ids]
    bills = bed.billed_by("loam-request")
    for request_id, entry in zip(request_ids, entries, strict=True):
        bill = bills.get(request_id, {"inputTokens": 0, "outputTokens": 0})
        billed = bill["inputTokens"] * INPUT_NANOS + bill["outputTokens"] * OUTPUT_NANOS
        assert billed <= entry["cost"] <= entry["held"], (request_id, bill, dict(entry))
        if not entry["estimated"]:
            assert entry["cost"] == billed, (request_id, bill, dict(entry))
    assert await database.fetchval(HELD, tenant.name) == 0
    assert await database.fetchval("SELECT count(*) FROM entries WHERE tenant = $1", tenant.name) == len(request_ids)
    return dict(zip(request_ids, entries, strict=True))


async def length_of_a_whole_stream(caller):
    """How many chunks a stream has that nobody cuts, its end included; the provider sends one event for each."""
    async with caller.ask(f"{caller.tenant.name}-whole", stream=True) as response:
        return len([line async for line in response.content if line.strip()])


async def test_a_stream_that_the_client_cuts_at_any_chunk_is_one_entry(bed, tenant, caller, database):
    whole = await length_of_a_whole_stream(caller)
    bed.bedrock.play({"contains": tenant.name, "fault": {"text": TEXT, "eventDelayMs": 5}})
    assert whole > 15

    async def cut_after(count):
        async with caller.ask(f"{tenant.name}-{count}", stream=True) as response:
            for _ in range(count):
                while not (await response.content.readline()).strip():
                    pass
            response.close()

    await at_once(cut_after(count) for count in range(whole + 1))
    ids = [f"{tenant.name}-{count}" for count in range(whole + 1)]
    entries = await checked(bed, database, tenant, [f"{tenant.name}-whole", *ids])
    outcomes = [entries[request_id]["outcome"] for request_id in ids]
    assert set(outcomes) == {"cut", "complete"}
    assert outcomes[0] == "cut"
    assert outcomes[-1] == "complete"


@pytest.mark.parametrize("fault", ["cutAfter", "errorAfter"])
async def test_a_stream_that_the_provider_ends_at_any_event_is_one_entry_and_says_so(
    bed, tenant, caller, database, fault
):
    count = await length_of_a_whole_stream(caller)
    error = {"error": "ModelStreamErrorException"} if fault == "errorAfter" else {}
    faults = ({"text": TEXT, fault: number} | error for number in range(count))
    bed.bedrock.play(*({"contains": f"{tenant.name}-{n}-", "fault": fault} for n, fault in enumerate(faults)))

    async def listen(number):
        async with caller.ask(f"{tenant.name}-{number}-", stream=True) as response:
            return response.status, await response.text()

    answers = await at_once(listen(number) for number in range(count))
    for status, text in answers:
        assert "provider_error" in text, (status, text)
        assert "[DONE]" not in text
    ids = [f"{tenant.name}-{number}-" for number in range(count)]
    entries = await checked(bed, database, tenant, [f"{tenant.name}-whole", *ids])
    assert {entries[request_id]["outcome"] for request_id in ids} <= {"cut", "failed"}


@pytest_asyncio.fixture(scope="module")
async def wire(bed) -> AsyncIterator[tuple[Breaker, Replica]]:
    """A gateway whose wire to the provider breaks."""
    async with Breaker(urlsplit(bed.bedrock.url).port) as breaker:
        [replica] = Replica.several(1, bed.folder, bed.servers)
        replica.environment |= {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": breaker.url,
            "LOAM_PROVIDER_READ_TIMEOUT": "1",
        }
        async with replicas_running([replica]):
            yield breaker, replica


@pytest.mark.parametrize("how", ["reset", "close", "silence"])
@pytest.mark.parametrize("stream", [True, False])
async def test_wherever_the_wire_to_the_provider_breaks_it_is_one_entry(
    bed, tenant, session, database, wire, how, stream
):
    breaker, replica = wire
    caller = Caller(session, replica, tenant)
    bed.bedrock.play({"contains": tenant.name, "fault": {"text": TEXT}})
    # Within the head of the answer, between head and body, in the first event, and all along the rest.
    places = (
        [0, 1, 40, 120, 200, 260, 300, 330, 400, 500, *range(600, 3000, 300)] if stream else [0, 1, 100, 250, 300, 400]
    )
    broken = breaker.broken

    async def listen(place):
        text = f"break {how} after {place} bytes"
        async with caller.ask(f"{tenant.name}-{place}", text, stream=stream) as response:
            return response.status, await response.text()

    answers = await at_once(listen(place) for place in places)
    assert breaker.broken - broken == len(places)
    for status, text in answers:
        assert "provider_error" in text or "timeout" in text, (status, text)
    entries = await checked(bed, database, tenant, [f"{tenant.name}-{place}" for place in places])
    assert {entry["outcome"] for entry in entries.values()} == {"cut"}
    assert all(entry["estimated"] for entry in entries.values())


async def test_a_call_that_the_provider_refuses_is_one_entry_that_costs_nothing(bed, tenant, caller, database):
    errors = ["400", "403", "404", "408", "424", "429", "500", "503"]
    bed.bedrock.play(*({"contains": f"{tenant.name}-{error}-", "fault": {"error": error}} for error in errors))
    ids = [f"{tenant.name}-{error}-{kind}" for error in errors for kind in ("plain", "stream")]

    async def refused(request_id):
        async with caller.ask(request_id, stream=request_id.endswith("stream")) as response:
            assert response.status >= 400
            await response.read()

    await at_once(map(refused, ids))
    entries = await checked(bed, database, tenant, ids)
    # Of a model that timed out nobody knows whether it was billed.
    free = {request_id: entry["cost"] == 0 for request_id, entry in entries.items() if "-408-" not in request_id}
    assert all(free.values()), free


async def test_a_caller_who_reads_nothing_and_leaves_pays_for_what_was_produced(bed, tenant, caller, database):
    bed.bedrock.play({"contains": tenant.name, "fault": {"text": "word " * 3000}})
    async with caller.ask(f"{tenant.name}-1", stream=True, max_tokens=4000) as response:
        await asyncio.sleep(1)
        response.close()
    await checked(bed, database, tenant, [f"{tenant.name}-1"])
