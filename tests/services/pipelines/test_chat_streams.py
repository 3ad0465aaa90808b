"""A pipeline's answers over WebSockets and after a cut, beside their REST route."""

import asyncio
import os

import aiohttp
import pytest

QUESTION = {"messages": [{"role": "user", "content": "why?"}]}


@pytest.fixture
async def tenant(gateway, service):
    return await gateway.new_tenant(f"t{os.urandom(4).hex()}", service.url)


def websocket(tenant):
    url = f"{tenant.gateway.public}/ws"
    return tenant.gateway.session.ws_connect(url, protocols=("bearer", tenant.reader_key))


async def answer_of(socket):
    """Events up to the end of the answer, without their ids."""
    events = [await socket.receive_json()]
    while events[-1]["event"] not in {"done", "error"}:
        events.append(await socket.receive_json())
    return [(event.pop("event"), event) for event in events]


async def test_a_chat_over_a_websocket_says_what_its_rest_twin_says(tenant, service):
    async with websocket(tenant) as socket:
        await socket.send_json({"id": "q", "action": "chat", "pipeline": "handbook", **QUESTION})
        [(first, started), *events] = await answer_of(socket)
    assert (first, started["id"]) == ("started", "q")
    assert events == [(name, {"id": "q"} | data) for name, data in service.events]
    headers, question = service.asked[0]
    assert question["messages"] == QUESTION["messages"]
    assert headers["x-request-id"] == started["requestId"]


async def test_cancelling_a_chat_ends_the_call_to_the_pipeline(tenant, service):
    service.pause, service.events = 0.05, service.events[:1] * 400
    async with websocket(tenant) as socket:
        await socket.send_json({"id": "q", "action": "chat", "pipeline": "handbook", **QUESTION})
        assert (await socket.receive_json())["event"] == "started"
        await socket.send_json({"id": "q", "action": "cancel"})
        [*_, last] = await answer_of(socket)
        assert last == ("done", {"id": "q", "cancelled": True})
        async with asyncio.timeout(5):
            await service.hung_up.wait()


async def test_a_chat_that_was_cut_goes_on_where_it_was(tenant, service):
    service.pause = 0.2
    resumable = {"x-loam-resume": "true"}
    async with tenant.call("POST", "/chat", json=QUESTION | {"stream": True}, headers=resumable) as response:
        stream_id = response.headers["x-loam-stream-id"]
        first = [await response.content.readline() for _ in range(4)]
    assert first[0] == b"id: 1\n"
    assert not service.hung_up.is_set()
    headers = {"authorization": f"Bearer {tenant.key}", "last-event-id": "1"}
    url = f"{tenant.gateway.public}/v1/streams/{stream_id}"
    async with tenant.gateway.session.get(url, headers=headers) as response:
        rest = (await response.text()).split("\n\n")[:-1]
    names = [event.split("\n")[1].removeprefix("event: ") for event in rest]
    assert names == [name for name, _ in service.events[1:]]
    assert [event.split("\n")[0] for event in rest] == [f"id: {n}" for n in range(2, len(service.events) + 1)]


async def test_a_chat_needs_its_scope_and_its_pipeline(tenant, service):
    refusals = []
    async with websocket(tenant) as socket:
        for body in ({"pipeline": "other", **QUESTION}, {"pipeline": "handbook", "messages": []}):
            await socket.send_json({"id": "q", "action": "chat", **body})
            [(name, event)] = await answer_of(socket)
            refusals.append((name, event["error"]["code"], event["error"]["param"]))
    assert refusals == [("error", "not_found", "name"), ("error", "invalid_request", "messages")]
    assert service.asked == []


async def test_a_browser_of_another_page_gets_no_answer_out_of_a_stolen_ticket(tenant):
    headers = {"authorization": f"Bearer {tenant.key}"}
    async with tenant.gateway.session.post(f"{tenant.gateway.public}/v1/auth/ws-ticket", headers=headers) as response:
        ticket = (await response.json())["ticket"]
    url = f"{tenant.gateway.public}/ws?ticket={ticket}"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await tenant.gateway.session.ws_connect(url, origin="https://evil.example.com")
    assert refused.value.status == 403
