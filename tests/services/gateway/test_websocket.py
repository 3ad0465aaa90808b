"""What callers get over one WebSocket."""

from ._sockets import opened, text_of

ENTRIES = "SELECT * FROM entries WHERE tenant = $1"


def asks(text, **more):
    return {"model": "haiku", "messages": [{"role": "user", "content": text}]} | more


async def test_a_completion_streams_the_text_of_its_rest_twin_and_is_one_entry(gateway, tenant, query):
    key = tenant.new_key()
    plain = tenant.http(key).post("/v1/complete", json=asks("Hello there")).json()
    async with opened(gateway, key) as socket:
        assert socket.connection.subprotocol == "bearer"
        events = await socket.all("one", "complete", **asks("Hello there"))
    assert {event["id"] for event in events} == {"one"}
    assert [events[0]["event"], events[-2]["event"], events[-1]["event"]] == ["started", "usage", "done"]
    assert text_of(events) == plain["content"]
