"""Streams that go on after their connection was lost: opt-in, at any gateway, for whoever began them."""

import asyncio
import contextlib
import itertools
import json

import httpx2 as httpx
import pytest

from loam_gateway.streams.room import MOST_ELSEWHERE

from .._servers import embedded
from ._platform import GatewayProcess, Servers, eventually
from ._sockets import opened, text_of

ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY posted_at"
HELD = "SELECT coalesce(sum(held), 0)::bigint AS held FROM accounts WHERE tenant = $1"
WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
RESUME = {"x-loam-resume": "true"}
ROUTES = ("/v1/stream", "/v1/chat/completions")


@pytest.fixture(scope="module")
def pair(folder, servers, gateway):
    """Two gateways that share everything, and give up soon on streams that nobody listens to."""
    with embedded.valkey() as redis_url:
        made = []
        for _ in range(2):
            own = Servers(**vars(servers) | {"redis_url": redis_url, "more": {"LOAM_RESUME_SECONDS": "2"}})
            process = GatewayProcess(folder, own)
            for name in ("LOAM_ENCRYPTION_KEY_FILE", "LOAM_SIGNING_KEY_FILE"):
                process.environment[name] = gateway.environment[name]
            made.append(process.start())
        yield made
        for process in made:
            process.stop()


@pytest.fixture
def slow(faults, tenant):
    """Answers to the tenant take so many milliseconds a word."""

    def play(pause, text=WORDS):
        faults({"contains": tenant.name, "fault": {"eventDelayMs": pause, "text": text}})

    return play


def asks(tenant, **more):
    return {"model": "haiku", "messages": [{"role": "user", "content": f"for {tenant.name}"}], "stream": True} | more


def body(route, tenant):
    given = asks(tenant)
    return given if route == "/v1/chat/completions" else {name: given[name] for name in ("model", "messages")}


def third(folder, servers, pair):
    """One more gateway beside the two, not started yet."""
    own = Servers(**vars(servers) | {"redis_url": pair[0].environment["LOAM_REDIS_URL"]})
    made = GatewayProcess(folder, own)
    made.environment["LOAM_ENCRYPTION_KEY_FILE"] = pair[0].environment["LOAM_ENCRYPTION_KEY_FILE"]
    return made


class Heard:
    """What was heard of a stream: its events by number, and its id."""

    def __init__(self, stream_id=None):
        self.stream_id = stream_id
        self.events = []

    @property
    def last(self):
        return self.events[-1][0] if self.events else 0

    def text(self):
        return "".join(_text(data) for _, _, data in self.events)


def _text(data):
    if data == "[DONE]":
        return ""
    chunk = json.loads(data)
    return chunk.get("text", "") or "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", ()))


def take_in(heard, response, stop_after=None):
    """Read a stream's events, all or so many."""
    event = {}
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if name:
            event[name] = value
        elif event:
            # An error of the resuming itself is no event of the stream, and has no number.
            heard.events.append((int(event.get("id", 0)), event.get("event"), event["data"]))
            event = {}
            if len(heard.events) == stop_after:
                return


def begin(gateway, key, route, tenant, stop_after=None):
    heard = Heard()
    headers = RESUME | {"authorization": f"Bearer {key}"}
    with httpx.stream(
        "POST", gateway.public + route, json=body(route, tenant), headers=headers, timeout=30
    ) as response:
        assert response.status_code == 200, response.read()
        heard.stream_id = response.headers["x-loam-stream-id"]
        take_in(heard, response, stop_after)
    return heard


def go_on(gateway, key, heard, after=None):
    headers = {"authorization": f"Bearer {key}", "last-event-id": str(heard.last if after is None else after)}
    more = Heard(heard.stream_id)
    with httpx.stream("GET", f"{gateway.public}/v1/streams/{heard.stream_id}", headers=headers, timeout=30) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        take_in(more, response)
    return more


def status_of(gateway, key, stream_id, method="GET"):
    headers = {"authorization": f"Bearer {key}"}
    return httpx.request(method, f"{gateway.public}/v1/streams/{stream_id}", headers=headers, timeout=10)


def settled(query, tenant):
    eventually(lambda: len(query(ENTRIES, tenant.name)) == 1, "the call was not settled")
    assert query(HELD, tenant.name) == [{"held": 0}]
    [entry] = query(ENTRIES, tenant.name)
    return entry


@pytest.mark.parametrize("where", [0, 1], ids=["here", "elsewhere"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_cut_stream_goes_on_where_it_was_without_loss_or_repeat(pair, tenant, slow, query, route, where):
    slow(40)
    key = tenant.new_key()
    heard = begin(pair[0], key, route, tenant, stop_after=4)
    rest = go_on(pair[where], key, heard)
    events = [*heard.events, *rest.events]
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert heard.text() + rest.text() == WORDS
    assert events[-1][1:] == (None, "[DONE]") if route == "/v1/chat/completions" else events[-1][1] == "done"
    assert settled(query, tenant)["outcome"] == "complete"


def test_a_stream_that_is_cut_after_any_event_can_be_resumed_from_there(pair, tenant, slow, query):
    slow(0, "one two three four five six")
    key = tenant.new_key()
    whole = begin(pair[0], key, "/v1/stream", tenant)
    for after in range(whole.last + 1):
        for gateway in pair:
            assert go_on(gateway, key, whole, after).events == whole.events[after:]
    assert len(query(ENTRIES, tenant.name)) == 1


def test_many_listen_to_one_stream_at_once(pair, tenant, slow, query):
    slow(30)
    key = tenant.new_key()
    heard = begin(pair[0], key, "/v1/stream", tenant, stop_after=2)

    async def all_of_them():
        return await asyncio.gather(*[asyncio.to_thread(go_on, pair[n % 2], key, heard) for n in range(6)])

    rests = asyncio.run(all_of_them())
    assert {heard.text() + rest.text() for rest in rests} == {WORDS}
    assert settled(query, tenant)["outcome"] == "complete"


def test_without_opting_in_hanging_up_ends_the_call(pair, tenant, slow, query):
    slow(100)
    key = tenant.new_key()
    headers = {"authorization": f"Bearer {key}"}
    url = f"{pair[0].public}/v1/stream"
    with httpx.stream("POST", url, json=body("/v1/stream", tenant), headers=headers, timeout=30) as response:
        assert "x-loam-stream-id" not in response.headers
        first = next(response.iter_lines())
    assert first == "event: token"
    assert settled(query, tenant)["outcome"] == "cut"


def test_nobody_else_can_listen_or_cancel_not_even_another_key_of_the_tenant(pair, tenant, slow, gateway):
    slow(60)
    key, stranger = tenant.new_key(), gateway.new_tenant()
    heard = begin(pair[0], key, "/v1/stream", tenant, stop_after=2)
    for other in (tenant.new_key(), stranger.new_key()):
        for place in pair:
            for method in ("GET", "DELETE"):
                refused = status_of(place, other, heard.stream_id, method)
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert heard.text() + go_on(pair[1], key, heard).text() == WORDS


def test_a_stream_that_never_was_is_not_found(pair, tenant):
    assert status_of(pair[0], tenant.new_key(), "never-was").status_code == 404


def test_after_the_grace_without_a_listener_the_call_is_ended_and_settled(pair, tenant, slow, query):
    slow(500)
    key = tenant.new_key()
    heard = begin(pair[0], key, "/v1/stream", tenant, stop_after=2)
    assert query(ENTRIES, tenant.name) == []
    assert settled(query, tenant)["outcome"] == "cut"
    rest = go_on(pair[1], key, heard)
    [*_, (_, name, data)] = rest.events
    assert (name, json.loads(data)["error"]["code"]) == ("error", "unavailable")
    assert "nobody listened" in data


def test_a_listener_at_another_gateway_keeps_the_call_alive_beyond_the_grace(pair, tenant, slow, query):
    slow(400, "one two three four five six seven eight nine ten")
    key = tenant.new_key()
    heard = begin(pair[0], key, "/v1/stream", tenant, stop_after=1)
    assert heard.text() + go_on(pair[1], key, heard).text() == "one two three four five six seven eight nine ten"
    assert settled(query, tenant)["outcome"] == "complete"


@pytest.mark.parametrize("where", [0, 1], ids=["here", "elsewhere"])
def test_a_resumable_stream_can_be_cancelled_from_anywhere(pair, tenant, slow, query, where):
    slow(300)
    key = tenant.new_key()
    heard = begin(pair[0], key, "/v1/stream", tenant, stop_after=1)
    assert status_of(pair[where], key, heard.stream_id, "DELETE").status_code == 204
    assert settled(query, tenant)["outcome"] == "cut"


def test_a_stream_whose_gateway_was_killed_ends_with_an_error(folder, servers, pair, tenant, slow):
    slow(300)
    doomed = third(folder, servers, pair)
    key = tenant.new_key()
    heard = begin(doomed.start(), key, "/v1/stream", tenant, stop_after=2)
    doomed.kill()
    rest = go_on(pair[1], key, heard)
    assert [number for number, _, _ in rest.events] == [*range(3, len(rest.events) + 2), 0]
    [*_, (_, name, data)] = rest.events
    assert (name, json.loads(data)["error"]["code"]) == ("error", "unavailable")
    assert "is gone" in data


def test_what_waits_in_redis_is_sealed(pair, tenant, slow):
    slow(0, "a secret that nobody should read")
    begin(pair[0], tenant.new_key(), "/v1/stream", tenant)
    kept = _redis_dump(pair[0].environment["LOAM_REDIS_URL"])
    assert any(key.startswith(b"loam:stream:") for key in kept)
    assert not any(b"secret" in key + value for key, value in kept.items())
    assert not any(tenant.name.encode() in key + value for key, value in kept.items())


def _redis_dump(url):
    import redis

    with contextlib.closing(redis.Redis.from_url(url)) as client:
        return {key: client.dump(key) or b"" for key in client.scan_iter()}


def test_without_redis_a_stream_comes_all_the_same_only_not_resumable(folder, servers, tenant, slow, query):
    slow(0)
    [port] = embedded.free_ports(1)
    alone = GatewayProcess(folder, Servers(**vars(servers) | {"redis_url": f"redis://127.0.0.1:{port}"})).start()
    key = tenant.new_key()
    headers = RESUME | {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{alone.public}/v1/stream", json=body("/v1/stream", tenant), headers=headers, timeout=30)
    assert "x-loam-stream-id" not in answer.headers
    assert "event: done" in answer.text
    refused = status_of(alone, key, "any")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    alone.stop()
    assert settled(query, tenant)["outcome"] == "complete"


async def test_a_websocket_resumes_what_another_left_behind(pair, tenant, slow, query):
    slow(60)
    key = tenant.new_key()
    async with opened(pair[0], key) as first:
        await first.send("one", "complete", resume=True, model="haiku", messages=asks(tenant)["messages"])
        seen = [await first.next() for _ in range(4)]
    assert seen[0]["event"] == "started"
    async with opened(pair[1], key) as second:
        resumption = {"streamId": seen[0]["streamId"], "lastEventId": seen[-1]["eventId"]}
        rest = await second.all("again", "resume", **resumption)
    assert text_of(seen) + text_of(rest) == WORDS
    assert [event["eventId"] for event in rest[1:]] == list(range(4, 4 + len(rest) - 1))
    assert (await asyncio.to_thread(settled, query, tenant))["outcome"] == "complete"


async def test_cancel_over_a_websocket_ends_a_resumable_call_too(pair, tenant, slow, query):
    slow(200)
    async with opened(pair[0], tenant.new_key()) as socket:
        await socket.send("one", "complete", resume=True, model="haiku", messages=asks(tenant)["messages"])
        await socket.until("token")
        await socket.send("one", "cancel")
        [*_, last] = await socket.until("done", "error")
        assert last["cancelled"] is True
        assert (await asyncio.to_thread(settled, query, tenant))["outcome"] == "cut"


def test_a_stop_ends_what_nobody_listens_to_settled_and_says_so_elsewhere(folder, servers, pair, tenant, slow, query):
    slow(400)
    stopping = third(folder, servers, pair)
    key = tenant.new_key()
    heard = begin(stopping.start(), key, "/v1/stream", tenant, stop_after=2)
    stopping.stop()
    assert settled(query, tenant)["outcome"] == "cut"
    rest = go_on(pair[1], key, heard)
    assert rest.events[-1][1] == "error"
    assert "stops" in rest.events[-1][2]


async def test_one_tenants_listeners_elsewhere_leave_room_for_everybody_elses(pair, tenant, slow):
    slow(500, " ".join(["word"] * 200))
    key = tenant.new_key()
    heard = await asyncio.to_thread(begin, pair[0], key, "/v1/stream", tenant, 1)
    path, headers = f"/v1/streams/{heard.stream_id}", {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as client:
        listening = [asyncio.create_task(client.get(pair[1].public + path)) for _ in range(MOST_ELSEWHERE + 8)]
        # Those that there is no room for are told so at once.
        refused = [await answer for answer in itertools.islice(asyncio.as_completed(listening, timeout=60), 8)]
        await client.delete(pair[0].public + path)
        told = [answer.text for answer in await asyncio.gather(*listening)]
    assert all("rate_limited" in answer.text for answer in refused)
    assert sum("cancelled" in text for text in told) == MOST_ELSEWHERE
