"""Rate limits in Redis, exact across all gateways: GCRA buckets, and leases for what runs at once.

Scripts see only Redis' clock, so gateways whose clocks differ agree. Times are in milliseconds.
"""

from dataclasses import dataclass

from loam_gateway.adapters.redis import Redis

# Two GCRA buckets (a full minute's allowance may come at once) and a set of leases, admitted all or none.
# KEYS: requests, tokens, leases. ARGV: limit and cost of requests, limit and cost of tokens, limit of leases,
# lease id, lease seconds. A limit of 0 is none. Returns {admitted, which limit refused, milliseconds to wait}.
# A wait is the longest of both buckets', so that whoever comes back after it finds room in both.
_ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local minute = 60000

local function bucket(key, limit, cost)
  if limit == 0 then return 0, nil end
  local tat = math.max(tonumber(redis.call('GET', key) or now), now) + cost * minute / limit
  return tat - now - minute, tat
end

local function keep(key, tat)
  if tat then redis.call('SET', key, string.format('%.17g', tat), 'PX', math.ceil(tat - now) + 1) end
end

local requests_wait, requests_tat = bucket(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))
local tokens_wait, tokens_tat = bucket(KEYS[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
local wait = math.max(requests_wait, tokens_wait)
-- Less than a microsecond is no wait but the rounding of a double.
if wait > 0.001 then
  return {0, requests_wait == wait and 'requestsPerMinute' or 'tokensPerMinute', math.ceil(wait)}
end

local leases = tonumber(ARGV[5])
if leases > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) >= leases then return {0, 'concurrentRequests', 1000} end
  redis.call('ZADD', KEYS[3], now + ARGV[7] * 1000, ARGV[6])
  redis.call('PEXPIRE', KEYS[3], ARGV[7] * 1000)
end
keep(KEYS[1], requests_tat)
keep(KEYS[2], tokens_tat)
return {1, '', 0}
"""

# KEYS: tokens, leases. ARGV: limit of tokens, tokens more (or less) than were counted at first, lease id.
_FINISH = """
redis.call('ZREM', KEYS[2], ARGV[3])
local limit = tonumber(ARGV[1])
if limit > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + time[2] / 1000
  local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + ARGV[2] * 60000 / limit
  if tat > now then
    redis.call('SET', KEYS[1], string.format('%.17g', tat), 'PX', math.ceil(tat - now) + 1)
  else
    redis.call('DEL', KEYS[1])
  end
end
"""

# KEYS: leases. ARGV: lease id, lease seconds.
_RENEW = """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + time[2] / 1000 + ARGV[2] * 1000, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 1000)
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit was reached, and when to come back."""

    limit: str
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request needs room for; a limit of 0 is none. `lease` names it among those that run at once.

    `tokens` is at most the limit: what is longer than a minute's allowance gets in when the bucket is full.
    """

    bucket: str
    lease: str
    requests_limit: int
    requests: int
    tokens_limit: int
    tokens: int
    concurrent_limit: int
    lease_seconds: int


async def admit(redis: Redis, ask: Ask) -> Refusal | None:
    """None when there is room, which is then taken. Raises RedisUnavailableError."""
    # The braces keep one tenant's keys in one slot of a cluster, as a script needs.
    keys = [f"loam:limit:{{{ask.bucket}}}:{part}" for part in ("requests", "tokens", "leases")]
    arguments = (
        ask.requests_limit,
        ask.requests,
        ask.tokens_limit,
        ask.tokens,
        ask.concurrent_limit,
        ask.lease,
        ask.lease_seconds,
    )
    admitted, which, wait = await redis.evaluate(_ADMIT, keys, arguments)
    return None if admitted else Refusal(which.decode(), wait)


def renew(redis: Redis, ask: Ask) -> None:
    """Keep the lease for its time anew. Nobody waits for it."""
    if ask.concurrent_limit:
        redis.tell(_RENEW, [f"loam:limit:{{{ask.bucket}}}:leases"], (ask.lease, ask.lease_seconds))


def finish(redis: Redis, ask: Ask, *, tokens: int) -> None:
    """Give the lease back, and count the tokens that were really used. Nobody waits for it."""
    keys = [f"loam:limit:{{{ask.bucket}}}:{part}" for part in ("tokens", "leases")]
    redis.tell(_FINISH, keys, (ask.tokens_limit, tokens - ask.tokens, ask.lease))
