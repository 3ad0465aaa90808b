"""One tenant's burst, or its slow senders, do not stand before everybody else's requests."""

import asyncio
from urllib.parse import urlsplit

from openai import AsyncOpenAI

from ._platform import GatewayProcess, TestTenant, say

BURST = 600


async def test_a_request_of_another_tenant_overtakes_a_burst(gateway: GatewayProcess, tenant: TestTenant) -> None:
    other = gateway.new_tenant()
    answered, begun = 0, asyncio.Event()

    async def ask(client: AsyncOpenAI, words: str) -> None:
        await client.chat.completions.create(model="haiku", messages=say(words), max_tokens=16)

    async def loud(client: AsyncOpenAI, number: int) -> None:
        nonlocal answered
        await ask(client, f"hello {number}")
        answered += 1
        begun.set()

    async with tenant.async_client(tenant.new_key()) as busy, other.async_client(other.new_key()) as quiet:
        await ask(quiet, "warm up")
        async with asyncio.TaskGroup() as burst:
            for number in range(BURST):
                burst.create_task(loud(busy, number))
            await begun.wait()
            answered_before = answered
            await ask(quiet, "hello")
            answered_meanwhile = answered - answered_before
    other.close()
    assert answered_meanwhile < BURST / 10


async def test_callers_who_send_slowly_hold_up_nobody(gateway: GatewayProcess, tenant: TestTenant) -> None:
    address = urlsplit(gateway.public)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {tenant.new_key()}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    ).encode()
    writers = []
    for _ in range(40):
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(head)
        await writer.drain()
        writers.append(writer)
    async with asyncio.timeout(10), tenant.async_client(tenant.new_key()) as client:
        await client.chat.completions.create(model="haiku", messages=say("hello"), max_tokens=16)
    for writer in writers:
        writer.close()
