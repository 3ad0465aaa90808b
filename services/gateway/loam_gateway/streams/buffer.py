"""A stream's events in Redis, where every gateway finds them: sealed, numbered, and gone a while after its end.

The name of the keys is made from the stream's id and its owner, so that nobody else's credential leads to them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from loam_gateway.adapters.redis import Redis, Value
from loam_gateway.adapters.redis_tail import Tail
from loam_gateway.streams.reel import Numbered
from loam_gateway.vault import Vault

MAKER_SECONDS = 5.0
"""How long a gateway that died is believed to go on; one that lives says so every second."""
LISTENER_SECONDS = 3.0
"""How long a listener at another gateway counts after it was last heard of."""
LOOK_SECONDS = 1.0
_MOST_AT_ONCE = 500
_END = b"end"

# KEYS: events, maker, listener, cancel. ARGV: milliseconds to keep events, milliseconds to believe in the maker,
# number of the oldest event to keep, whether this is the end, number of the first new event, then the new events.
# Returns {whether another gateway listens, whether to cancel}.
_APPEND = """
local number = tonumber(ARGV[5])
for at = 6, #ARGV do
  redis.call('XADD', KEYS[1], number .. '-0', 'event', ARGV[at])
  number = number + 1
end
if ARGV[4] == '1' then
  redis.call('XADD', KEYS[1], number .. '-0', 'end', '')
  redis.call('DEL', KEYS[2])
else
  redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[3] .. '-0')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {redis.call('EXISTS', KEYS[3]), redis.call('EXISTS', KEYS[4])}
"""
# KEYS: events, maker, listener. ARGV: milliseconds that this listener counts. Returns {are there events, a maker}.
_LISTEN = """
redis.call('SET', KEYS[3], '', 'PX', ARGV[1])
return {redis.call('EXISTS', KEYS[1]), redis.call('EXISTS', KEYS[2])}
"""


@dataclass(frozen=True, slots=True)
class Name:
    """A stream's id, as its owner knows it, and whose it is."""

    stream_id: str
    owner: str

    def keys(self, *parts: str) -> list[str]:
        """Keys of one slot, of which nobody can guess another's."""
        digest = hashlib.sha256(f"{self.owner}/{self.stream_id}".encode()).hexdigest()
        return [f"loam:stream:{{{digest}}}:{part}" for part in parts]


@dataclass(frozen=True, slots=True)
class Heard:
    """What the maker hears from other gateways: that somebody listens there, and that the stream is to be cancelled."""

    listener: bool
    cancel: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What came after a listener's last event, whether that is the end, and whether a gateway is making more."""

    events: tuple[Numbered, ...]
    ended: bool
    made: bool
    known: bool


class Buffer:
    """Every call raises RedisUnavailableError when Redis is away."""

    def __init__(self, redis: Redis, tail: Tail, vault: Vault, *, keep_seconds: float) -> None:
        self._redis = redis
        self._tail = tail
        self._vault = vault
        self._keep_ms = _ms(keep_seconds + MAKER_SECONDS)

    async def append(self, name: Name, new: Sequence[Numbered], *, oldest: int, next_number: int, end: bool) -> Heard:
        """Add what is new, drop what is older than `oldest`, and say that the stream is still being made."""
        number = new[0][0] if new else next_number
        sealed = [self._vault.encrypt(event, purpose=_purpose(name, at)) for at, event in new]
        keys = name.keys("events", "maker", "listener", "cancel")
        arguments: list[Value] = [self._keep_ms, _ms(MAKER_SECONDS), oldest, int(end), number, *sealed]
        listener, cancel = await self._redis.evaluate(_APPEND, keys, arguments)
        return Heard(bool(listener), bool(cancel))

    async def cancel(self, name: Name) -> bool:
        """Have the stream cancelled by the gateway that makes it. False when none does."""
        maker, cancel = name.keys("maker", "cancel")
        if not await self._redis.execute("EXISTS", maker):
            return False
        await self._redis.execute("SET", cancel, "", "PX", _ms(MAKER_SECONDS))
        return True

    async def find(self, name: Name, after: int) -> Found:
        """What is there already after the event `after`."""
        return await self._look(name, after, 0)

    async def listen(self, name: Name, after: int) -> Found:
        """What comes after the event `after`, which is waited for a moment when there is nothing yet."""
        return await self._look(name, after, LOOK_SECONDS)

    async def _look(self, name: Name, after: int, seconds: float) -> Found:
        known, made = await self._redis.evaluate(
            _LISTEN, name.keys("events", "maker", "listener"), (_ms(LISTENER_SECONDS),)
        )
        rows = await self._tail.after(name.keys("events")[0], after, seconds=seconds, count=_MOST_AT_ONCE)
        found = Found((), ended=False, made=bool(made), known=bool(known))
        for number, fields in rows:
            found = self._with(found, name, number, fields)
        return found

    def _with(self, found: Found, name: Name, number: int, fields: dict[bytes, Any]) -> Found:
        if _END in fields:
            return replace(found, ended=True)
        event = self._vault.decrypt(fields[b"event"], purpose=_purpose(name, number))
        return replace(found, events=(*found.events, (number, event)))


def _purpose(name: Name, number: int) -> str:
    return f"stream {name.stream_id} event {number}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
