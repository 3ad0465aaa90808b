"""A WebSocket to the gateway, as a real client opens it."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from ._platform import GatewayProcess

Event = dict[str, Any]


class Socket:
    """Sends actions and reads events."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, action_id: str, action: str, **body: Any) -> None:
        await self.connection.send(json.dumps({"id": action_id, "action": action, **body}))

    async def next(self) -> Event:
        event: Event = json.loads(await self.connection.recv())
        return event

    async def until(self, *names: str, of: str | None = None) -> list[Event]:
        """Events up to the first of those names, which is the last given."""
        seen = [await self.next()]
        while seen[-1]["event"] not in names or (of is not None and seen[-1]["id"] != of):
            seen.append(await self.next())
        return seen

    async def all(self, action_id: str, action: str, **body: Any) -> list[Event]:
        """Everything that an action answers."""
        await self.send(action_id, action, **body)
        return await self.until("done", "error", of=action_id)


@contextlib.asynccontextmanager
async def opened(gateway: GatewayProcess, key: str | None = None, **how: Any) -> AsyncIterator[Socket]:
    """A WebSocket that `key` opened, as a browser does it."""
    if key is not None:
        how["subprotocols"] = ["bearer", key]
    query = how.pop("query", "")
    url = f"{gateway.public.replace('http', 'ws', 1)}/ws{query}"
    async with connect(url, proxy=None, **how) as connection:
        yield Socket(connection)


def text_of(events: list[Event]) -> str:
    return "".join(event["text"] for event in events if event["event"] == "token")
