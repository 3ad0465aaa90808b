"""Redis: rate limits that hold across all gateways, in one round trip each, and never in the way when it is gone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

_log = structlog.get_logger()
_TIMEOUT_SECONDS = 0.25
_PAUSE_SECONDS = 1.0

# Two GCRA buckets (a full minute's allowance may come at once) and a set of leases, admitted all or none.
# KEYS: requests, tokens, leases. ARGV: limit and cost of requests, limit and cost of tokens, limit of leases,
# lease id, lease seconds. A limit of 0 is none. Returns {admitted, which limit refused, milliseconds to wait}.
_ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local minute = 60000

local function bucket(key, limit, cost)
  if limit == 0 then return 0, nil end
  local tat = math.max(tonumber(redis.call('GET', key) or now), now)
  local next_tat = tat + math.min(cost, limit) * minute / limit
  return next_tat - now - minute, next_tat
end

local requests_wait, requests_tat = bucket(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))
if requests_wait > 0 then return {0, 'requestsPerMinute', math.ceil(requests_wait)} end
local tokens_wait, tokens_tat = bucket(KEYS[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
if tokens_wait > 0 then return {0, 'tokensPerMinute', math.ceil(tokens_wait)} end

local leases = tonumber(ARGV[5])
if leases > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) >= leases then return {0, 'concurrentRequests', 1000} end
  redis.call('ZADD', KEYS[3], now + ARGV[7] * 1000, ARGV[6])
  redis.call('PEXPIRE', KEYS[3], ARGV[7] * 1000)
end
if requests_tat then redis.call('SET', KEYS[1], requests_tat, 'PX', math.ceil(requests_tat - now) + 1) end
if tokens_tat then redis.call('SET', KEYS[2], tokens_tat, 'PX', math.ceil(tokens_tat - now) + 1) end
return {1, '', 0}
"""

# KEYS: tokens, leases. ARGV: limit of tokens, tokens more (or less) than were counted at first, lease id.
_FINISH = """
redis.call('ZREM', KEYS[2], ARGV[3])
local limit = tonumber(ARGV[1])
if limit > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + ARGV[2] * 60000 / limit
  if tat > now then redis.call('SET', KEYS[1], tat, 'PX', math.ceil(tat - now) + 1) else redis.call('DEL', KEYS[1]) end
end
"""


class RedisUnavailableError(Exception):
    """Redis did not answer; whoever asks decides what that means."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit was reached, and when to come back."""

    limit: str
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request needs room for; a limit of 0 is none. `lease` names it among those that run at once."""

    bucket: str
    lease: str
    requests_limit: int
    requests: int
    tokens_limit: int
    tokens: int
    concurrent_limit: int
    lease_seconds: int


class RateLimits:
    """Limits in Redis. After a failure it is left alone for a moment, so that its absence costs no request time."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._admit = redis.register_script(_ADMIT)
        self._finish = redis.register_script(_FINISH)
        self._not_before = 0.0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["RateLimits"]:
        """Limits in the Redis at `url`, which need not be up."""
        redis = Redis.from_url(url, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS)
        try:
            yield cls(redis)
        finally:
            await redis.aclose()

    async def ping(self) -> None:
        """Raises RedisUnavailableError."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise RedisUnavailableError(str(error)) from error

    async def admit(self, ask: Ask) -> Refusal | None:
        """None when there is room, which is then taken. Raises RedisUnavailableError."""
        self._check_pause()
        arguments = (
            ask.requests_limit,
            ask.requests,
            ask.tokens_limit,
            ask.tokens,
            ask.concurrent_limit,
            ask.lease,
            ask.lease_seconds,
        )
        keys = [_key(ask.bucket, part) for part in ("requests", "tokens", "leases")]
        try:
            admitted, which, wait = await self._admit(keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            raise self._failed(error) from error
        return None if admitted else Refusal(which.decode(), wait)

    async def finish(self, ask: Ask, *, tokens: int) -> None:
        """Give the lease back, and count the tokens that were really used. Raises RedisUnavailableError."""
        self._check_pause()
        keys = [_key(ask.bucket, part) for part in ("tokens", "leases")]
        try:
            await self._finish(keys=keys, args=(ask.tokens_limit, tokens - ask.tokens, ask.lease))
        except (RedisError, OSError) as error:
            raise self._failed(error) from error

    def _check_pause(self) -> None:
        if asyncio.get_running_loop().time() < self._not_before:
            raise RedisUnavailableError("Redis failed a moment ago")

    def _failed(self, error: Exception) -> RedisUnavailableError:
        self._not_before = asyncio.get_running_loop().time() + _PAUSE_SECONDS
        _log.warning("redis does not answer; rate limits are not enforced", reason=str(error))
        return RedisUnavailableError(str(error))


def _key(bucket: str, part: str) -> str:
    # The braces keep one tenant's keys in one slot of a cluster, as a script needs.
    return f"loam:limit:{{{bucket}}}:{part}"
