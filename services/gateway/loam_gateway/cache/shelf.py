"""Kept answers in Redis, and the leases by which gateways agree on who asks the provider."""

import asyncio
import secrets
from enum import Enum
from typing import Any

from loam_gateway.adapters.redis import Redis, RedisUnavailableError
from loam_gateway.cache.entry import Cached
from loam_gateway.vault import Vault

# KEYS: answer, lease. ARGV: gateway, lease in milliseconds. The answer; else 1 with the lease taken, or 0 when another
# gateway has it. A gateway's own lease is given to it again: within itself it knows who leads.
_LOOK = """
local answer = redis.call('GET', KEYS[1])
if answer then return answer end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
"""
# KEYS: answer. The answer, or 1.
_READ = "return redis.call('GET', KEYS[1]) or 1"
# KEYS: answer, lease. ARGV: gateway, answer, milliseconds to keep it.
_KEEP = """
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
"""
# KEYS: lease. ARGV: gateway.
_RETURN = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
# KEYS: lease. ARGV: gateway, lease in milliseconds.
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end"


class Found(Enum):
    """What there is instead of an answer."""

    NOTHING = 1
    ANOTHERS_LEASE = 0


class Shelf:
    """Answers by key, encrypted. All of it may be lost, and nobody waits for anything but what is looked for."""

    def __init__(self, redis: Redis, vault: Vault, lease_seconds: float) -> None:
        self._redis = redis
        self._vault = vault
        self._gateway = secrets.token_hex(8)
        self._lease_ms = round(lease_seconds * 1000)

    def look(self, key: bytes) -> "asyncio.Future[Any] | None":
        """Ask for the answer, or else for the lease; `found` reads the reply. None when Redis is away."""
        return self._begun(_LOOK, key)

    def read(self, key: bytes) -> "asyncio.Future[Any] | None":
        """Ask for the answer alone; otherwise as `look`."""
        return self._begun(_READ, key)

    def found(self, key: bytes, reply: Any) -> Cached | Found:
        """The answer, or whose it is to ask for it."""
        if not isinstance(reply, bytes):
            return Found(reply)
        return Cached.unsealed(self._vault, key, reply) or Found.NOTHING

    def _begun(self, script: str, key: bytes) -> "asyncio.Future[Any] | None":
        try:
            reply = self._redis.ask(script, _both(key), (self._gateway, self._lease_ms))
        except RedisUnavailableError:
            return None
        # Who asked may be refused or gone before the reply is there; then nobody misses it.
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        return reply

    def keep(self, key: bytes, cached: Cached, seconds: float) -> None:
        """Keep the answer, if it is not too large, and give the lease back."""
        sealed = cached.sealed(self._vault, key)
        if sealed is None:
            self.give_back(key)
        else:
            self._redis.tell(_KEEP, _both(key), (self._gateway, sealed, max(1, round(seconds * 1000))))

    def renew(self, key: bytes) -> None:
        """Keep the lease, since the provider is still being waited for."""
        self._redis.tell(_RENEW, (_lease(key),), (self._gateway, self._lease_ms))

    def give_back(self, key: bytes) -> None:
        """Let another gateway ask."""
        self._redis.tell(_RETURN, (_lease(key),), (self._gateway,))


def _answer(key: bytes) -> str:
    # The braces keep an answer and its lease in one slot of a cluster, as a script needs.
    return f"loam:cache:{{{key.hex()}}}"


def _lease(key: bytes) -> str:
    return f"loam:cache:{{{key.hex()}}}:lease"


def _both(key: bytes) -> tuple[str, str]:
    return _answer(key), _lease(key)
