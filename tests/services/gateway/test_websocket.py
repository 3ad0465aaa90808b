"""What callers get over one WebSocket."""

import asyncio
import json
import socket as sockets
from datetime import UTC, datetime, timedelta

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ._platform import GatewayProcess, Servers, eventually
from ._sockets import opened, text_of

ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY posted_at"
HELD = "SELECT coalesce(sum(held), 0)::bigint AS held FROM accounts WHERE tenant = $1"


async def entries(query, tenant):
    """What the ledger has of the tenant, oldest first, once nothing is held any more."""
    # A hold that was granted to one who had gone already is given back on its own.
    await asyncio.to_thread(eventually, lambda: query(HELD, tenant.name) == [{"held": 0}], "something stayed held")
    return await asyncio.to_thread(query, ENTRIES, tenant.name)


async def settled(query, tenant, count):
    """The tenant's entries once there are so many."""
    await asyncio.to_thread(eventually, lambda: len(query(ENTRIES, tenant.name)) == count, "not all was settled", 15)
    return await entries(query, tenant)


def asks(text, **more):
    return {"model": "haiku", "messages": [{"role": "user", "content": text}]} | more


def slow(tenant, text="one two three four five six seven eight nine ten", pause=100):
    """Answers to this tenant are `text`, slowly."""
    return {"contains": tenant.name, "fault": {"eventDelayMs": pause, "text": text}}


async def refusal(gateway, key=None, **how):
    with pytest.raises(InvalidStatus) as refused:
        async with opened(gateway, key, **how):
            pass
    response = refused.value.response
    return response.status_code, json.loads(response.body)["error"]


async def closed(socket):
    """The code with which the server closes; what comes before is read away."""
    with pytest.raises(ConnectionClosed) as ended:
        await socket.until("the end of time")
    return ended.value.rcvd.code if ended.value.rcvd else None


# Actions


async def test_a_completion_streams_the_text_of_its_rest_twin_and_is_an_entry_like_its(gateway, tenant, query):
    key = tenant.new_key()
    uncached = {"cache-control": "no-store"}
    plain = tenant.http(key).post("/v1/complete", json=asks("Hello there"), headers=uncached).json()
    async with opened(gateway, key) as socket:
        assert socket.connection.subprotocol == "bearer"
        events = await socket.all("one", "complete", **asks("Hello there"))
    assert {event["id"] for event in events} == {"one"}
    assert [events[0]["event"], events[-2]["event"], events[-1]["event"]] == ["started", "usage", "done"]
    assert text_of(events) == plain["content"]
    usage = {name: events[-2][name] for name in ("inputTokens", "outputTokens", "costUsd")}
    assert usage == plain["usage"]
    twin, own = await entries(query, tenant)
    assert (own["kind"], own["cost"], own["key_id"]) == ("stream", twin["cost"], twin["key_id"])


async def test_a_template_fills_a_completion(gateway, tenant):
    async with opened(gateway, tenant.new_key()) as socket:
        body = {"template": "summarize", "variables": {"text": "Loam is a layer for tenants."}, "model": "haiku"}
        events = await socket.all("one", "complete", **body)
    assert events[-1]["event"] == "done"
    assert events[0]["template"].startswith("summarize")


async def test_several_actions_at_once_keep_their_ids(gateway, tenant, query):
    async with opened(gateway, tenant.new_key()) as socket:
        for number in range(16):
            await socket.send(f"a{number}", "complete", **asks(f"this is number {number}"))
        seen = []
        while sum(event["event"] in {"done", "error"} for event in seen) < 16:
            seen.append(await socket.next())
    for number in range(16):
        own = [event for event in seen if event["id"] == f"a{number}"]
        assert own[-1]["event"] == "done"
        assert f"this is number {number}”" in text_of(own)
    assert len(await entries(query, tenant)) == 16


async def test_a_seventeenth_action_at_once_is_refused_and_the_rest_go_on(gateway, tenant, faults):
    faults(slow(tenant, "one two", pause=300))
    async with opened(gateway, tenant.new_key()) as socket:
        for number in range(17):
            await socket.send(f"a{number}", "complete", **asks(f"{tenant.name} {number}"))
        [*_, refused] = await socket.until("error")
        assert (refused["id"], refused["error"]["code"]) == ("a16", "rate_limited")
        done = 0
        while done < 16:
            done += (await socket.next())["event"] == "done"


async def test_the_same_idempotency_key_is_one_call_and_the_same_answer(gateway, tenant, query):
    async with opened(gateway, tenant.new_key()) as socket:
        first = await socket.all("one", "complete", idempotencyKey="k1", **asks("Once only"))
        again = await socket.all("two", "complete", idempotencyKey="k1", **asks("Once only"))
        other = await socket.all("three", "complete", idempotencyKey="k1", **asks("Something else"))
    assert text_of(again) == text_of(first) != ""
    assert other[-1]["error"]["code"] == "idempotency_conflict"
    assert len(await entries(query, tenant)) == 1


async def test_a_budget_refuses_an_action_as_it_refuses_its_twin(gateway, tenant):
    tenant.put(budget={"monthlyUsd": "0.000001"})
    async with opened(gateway, tenant.new_key()) as socket:
        [event] = await socket.all("one", "complete", **asks("Hello"))
    assert (event["event"], event["error"]["code"], event["error"]["type"]) == (
        "error",
        "budget_exceeded",
        "budget_error",
    )
    assert event["error"]["requestId"]


async def test_each_action_needs_its_scope(gateway, tenant):
    async with opened(gateway, tenant.new_key(scopes=("usage:read",))) as socket:
        [completing] = await socket.all("one", "complete", **asks("Hello"))
        [chatting] = await socket.all("two", "chat", pipeline="docs", messages=[{"role": "user", "content": "Hi"}])
    assert ("ai:complete" in completing["error"]["message"], completing["error"]["code"]) == (True, "forbidden")
    assert ("rag:query" in chatting["error"]["message"], chatting["error"]["code"]) == (True, "forbidden")


async def test_a_pipeline_that_is_not_there_is_not_found_as_over_http(gateway, tenant):
    async with opened(gateway, tenant.new_key()) as socket:
        [event] = await socket.all("one", "chat", pipeline="none", messages=[{"role": "user", "content": "Hi"}])
        assert event["error"]["code"] == "not_found"
        [event] = await socket.all("two", "chat", messages=[{"role": "user", "content": "Hi"}])
        assert (event["error"]["code"], event["error"]["param"]) == ("invalid_request", "pipeline")


async def test_agents_are_said_not_to_be_served_yet(gateway, tenant):
    async with opened(gateway, tenant.new_key()) as socket:
        [event] = await socket.all("one", "agent", agent="helper", input="Hi")
    assert (event["event"], event["error"]["code"]) == ("error", "not_served")


# Ends


async def test_cancel_ends_the_providers_call_settles_it_and_frees_the_id(gateway, tenant, query, faults):
    faults(slow(tenant))
    async with opened(gateway, tenant.new_key()) as socket:
        await socket.send("one", "complete", **asks(tenant.name))
        await socket.until("token")
        await socket.send("one", "cancel")
        [*_, last] = await socket.until("done", "error")
        assert last == {"id": "one", "event": "done", "cancelled": True}
        [entry] = await entries(query, tenant)
        assert (entry["outcome"], entry["estimated"]) == ("cut", True)
        faults()
        assert (await socket.all("one", "complete", **asks("again")))[-1]["event"] == "done"


async def test_closing_ends_and_settles_everything_that_ran(gateway, tenant, query, faults):
    faults(slow(tenant))
    async with opened(gateway, tenant.new_key()) as socket:
        for number in range(3):
            await socket.send(f"a{number}", "complete", **asks(f"{tenant.name} {number}"))
        for _ in range(3):
            await socket.until("token")
    assert {entry["outcome"] for entry in await settled(query, tenant, 3)} == {"cut"}


@pytest.mark.parametrize("how", ["cancel", "close", "vanish"])
async def test_a_stream_that_is_cut_after_any_number_of_tokens_is_one_entry(gateway, tenant, query, faults, how):
    faults(slow(tenant, "one two three four five six", pause=20))
    key = tenant.new_key()

    async def cut(after):
        async with opened(gateway, key) as socket:
            await socket.send("one", "complete", **asks(f"{tenant.name} {after}"))
            for _ in range(after):
                if (await socket.next())["event"] == "done":
                    break
            if how == "cancel":
                await socket.send("one", "cancel")
                await socket.until("done", "error")
            elif how == "vanish":
                socket.connection.transport.abort()

    cuts = range(1, 13)
    await asyncio.gather(*[cut(after) for after in cuts])
    found = await settled(query, tenant, len(cuts))
    assert len({entry["request_id"] for entry in found}) == len(cuts)


async def test_a_client_that_stops_reading_is_cut_and_settled(stalling, query, faults):
    tenant = stalling.new_tenant()
    faults({"contains": tenant.name, "fault": {"text": "word " * 40_000}})
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", int(stalling.public.rsplit(":", 1)[1])))
    raw.setblocking(False)
    async with opened(stalling, tenant.new_key(), sock=raw, max_queue=1, close_timeout=0.1) as socket:
        for number in range(4):
            await socket.send(f"a{number}", "complete", **asks(f"{tenant.name} {number}", maxTokens=4096))
        await asyncio.to_thread(eventually, lambda: stalling.metric("loam_websockets") == 0, "it stayed open")
        assert "cut" in {entry["outcome"] for entry in await entries(query, tenant)}


@pytest.fixture(scope="module")
def stalling(folder, servers, gateway):
    """A gateway that is impatient with clients who do not read, and has few places for them."""
    more = {"LOAM_WEBSOCKET_STALL_SECONDS": "0.5", "LOAM_WEBSOCKETS_PER_TENANT": "2", "LOAM_MAX_BODY_BYTES": "4096"}
    process = GatewayProcess(folder, Servers(**vars(servers) | {"more": more})).start()
    yield process
    process.stop()


# Frames


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ("no JSON", None),
        ("[]", None),
        ('{"action": "ping"}', "id"),
        ('{"id": "", "action": "ping"}', "id"),
        ('{"id": 7, "action": "ping"}', "id"),
        ('{"id": "x", "action": "dance"}', "action"),
        ('{"id": "x"}', "action"),
        ('{"id": "x", "action": "cancel"}', "id"),
        ('{"id": "x", "action": "complete", "idempotencyKey": "ä"}', "idempotencyKey"),
        ('{"id": "x", "action": "complete", "messages": "hello"}', "messages"),
        ('{"id": "x", "action": "complete", "model": "haiku", "temprature": 1}', "temprature"),
        ('{"id": "x", "action": "resume"}', "streamId"),
        ('{"id": "x", "action": "resume", "streamId": "s", "lastEventId": -1}', "lastEventId"),
    ],
)
async def test_a_bad_frame_is_answered_by_an_error_that_names_the_field(gateway, tenant, frame, param):
    async with opened(gateway, tenant.new_key()) as socket:
        await socket.connection.send(frame)
        event = await socket.next()
        assert (event["event"], event["error"]["code"], event["error"]["param"]) == ("error", "invalid_request", param)
        await socket.send("alive", "ping")
        assert await socket.next() == {"id": "alive", "event": "pong"}


async def test_an_id_under_way_is_refused_and_its_action_goes_on(gateway, tenant, faults):
    faults(slow(tenant, pause=50))
    async with opened(gateway, tenant.new_key()) as socket:
        await socket.send("one", "complete", **asks(tenant.name))
        await socket.until("token")
        await socket.send("one", "complete", **asks(tenant.name))
        [*_, refused] = await socket.until("error")
        assert refused["error"]["param"] == "id"
        [*_, last] = await socket.until("done")
        assert "cancelled" not in last


async def test_too_many_bad_frames_in_a_row_close_the_connection(gateway, tenant):
    async with opened(gateway, tenant.new_key()) as socket:
        for _ in range(20):
            await socket.connection.send("{")
        assert await closed(socket) == 1008


async def test_a_frame_larger_than_a_body_may_be_closes_the_connection(stalling):
    async with opened(stalling, stalling.new_tenant().new_key()) as socket:
        await socket.connection.send("x" * 5000)
        assert await closed(socket) == 1009


# Credentials


async def test_no_key_a_wrong_one_and_a_pods_own_are_refused_in_the_shape_of_all_errors(gateway, tenant):
    pods = tenant.new_key(workload="docs")
    for key in (None, "loam_wrong", pods):
        status, error = await refusal(gateway, key)
        assert (status, error["code"], error["type"]) == (401, "invalid_api_key", "authentication_error")
        assert error["requestId"]


async def test_a_command_may_send_its_key_as_a_header(gateway, tenant):
    headers = {"authorization": f"Bearer {tenant.new_key()}"}
    async with opened(gateway, additional_headers=headers) as socket:
        assert socket.connection.subprotocol is None
        await socket.send("p", "ping")
        assert (await socket.next())["event"] == "pong"


async def test_a_ticket_opens_one_websocket_at_any_gateway_and_is_never_logged(gateway, stalling, tenant):
    issued = tenant.http().post("/v1/auth/ws-ticket")
    assert issued.status_code == 201
    assert set(issued.json()) == {"ticket", "expiresAt"}
    ticket = issued.json()["ticket"]

    async def attempt(where):
        try:
            async with opened(where, query=f"?ticket={ticket}") as socket:
                return (await socket.all("one", "complete", **asks("Hi")))[-1]["event"]
        except InvalidStatus as refused:
            return refused.response.status_code

    results = await asyncio.gather(*[attempt(gateway) for _ in range(10)])
    assert sorted(results, key=str) == [401] * 9 + ["done"]
    assert ticket not in gateway.log()


async def test_a_ticket_is_worth_no_more_than_its_key(gateway, tenant):
    key = tenant.new_key("gone")
    ticket = tenant.http(key).post("/v1/auth/ws-ticket").json()["ticket"]
    gateway.delete(f"/tenants/{tenant.name}/keys/gone")
    status, error = await refusal(gateway, query=f"?ticket={ticket}")
    assert (status, error["code"]) == (401, "invalid_api_key")


async def test_a_revoked_key_closes_its_websocket_and_cuts_what_runs(gateway, tenant, query, faults):
    faults(slow(tenant))
    async with opened(gateway, tenant.new_key("gone")) as socket:
        await socket.send("one", "complete", **asks(tenant.name))
        await socket.until("token")
        gateway.delete(f"/tenants/{tenant.name}/keys/gone")
        async with asyncio.timeout(1):
            assert await closed(socket) == 4401
    assert [entry["outcome"] for entry in await settled(query, tenant, 1)] == ["cut"]


async def test_a_key_that_expires_closes_its_websocket(gateway, tenant):
    soon = datetime.now(UTC) + timedelta(seconds=2)
    async with opened(gateway, tenant.new_key(expiresAt=soon.isoformat())) as socket:
        async with asyncio.timeout(5):
            assert await closed(socket) == 4401
        assert datetime.now(UTC) >= soon


async def test_a_suspended_tenant_loses_its_websockets(gateway, tenant):
    async with opened(gateway, tenant.new_key()) as socket:
        tenant.put(suspended=True)
        async with asyncio.timeout(1):
            assert await closed(socket) == 4403
    assert (await refusal(gateway, tenant.new_key()))[0] == 403


async def test_a_tenant_has_so_many_websockets_and_no_more(stalling):
    crowded, other = stalling.new_tenant(), stalling.new_tenant()
    key = crowded.new_key()
    async with opened(stalling, key), opened(stalling, key):
        status, error = await refusal(stalling, key)
        assert (status, error["code"]) == (429, "rate_limited")
        async with opened(stalling, other.new_key()):
            pass


# A stop


async def test_a_stop_lets_answers_finish_cuts_what_takes_longer_and_closes_as_a_restart(
    folder, servers, query, faults
):
    stopping = GatewayProcess(folder, Servers(**vars(servers) | {"more": {"LOAM_DRAIN_TIMEOUT": "2"}})).start()
    quick, long = stopping.new_tenant(), stopping.new_tenant()
    faults(slow(quick, "one two three four five", pause=150), slow(long, pause=1000))
    async with opened(stopping, quick.new_key()) as first, opened(stopping, long.new_key()) as second:
        for socket, tenant in ((second, long), (first, quick)):
            await socket.send("one", "complete", **asks(tenant.name))
            await socket.until("token")
        stopped = asyncio.create_task(asyncio.to_thread(stopping.stop))
        assert text_of(await first.until("done")).endswith("five")
        assert await closed(first) == 1012
        assert await closed(second) == 1012
        await stopped
    assert [entry["outcome"] for entry in await settled(query, quick, 1)] == ["complete"]
    assert [entry["outcome"] for entry in await settled(query, long, 1)] == ["cut"]
