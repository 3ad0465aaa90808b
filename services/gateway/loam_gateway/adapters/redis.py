"""Redis, or Valkey: one connection a process, whose round trips many requests share.

What is asked while a round trip is under way goes together in the next one, so the busier the gateway, the less each
request pays. Nobody ever waits for a Redis that is gone: it is looked for in the background, and until it is found
everything that is asked fails at once.
"""

import asyncio
import contextlib
import hashlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import hiredis
import structlog
from redis.asyncio.connection import SSLConnection, parse_url

_TIMEOUT_SECONDS = 0.25
_PAUSE_SECONDS = 1.0
# So long, what nobody waits for may wait for somebody else's round trip.
_TOLD_WITHIN_SECONDS = 0.002
_log = structlog.get_logger()

Value = str | bytes | int | float


class RedisUnavailableError(Exception):
    """Redis did not answer, or not with what was asked for; whoever asks decides what that means."""


class Redis:
    """Commands and scripts, answered in the order in which they are asked. Texts in answers are bytes.

    For what blocks or subscribes open a connection apart: everybody waits for what waits here.
    """

    def __init__(self, url: str) -> None:
        self._address = _Address(url)
        self._link: _Link | None = None
        self._reason = "it has not answered yet"

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["Redis"]:
        """The Redis at `url`, which need not be up. What was told before the end of the context still goes out."""
        redis, tried = cls(url), asyncio.Event()
        keeping = asyncio.create_task(redis._stay_connected(tried))
        await tried.wait()
        try:
            yield redis
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            if redis._link is not None:
                await redis._link.close()

    async def execute(self, *command: Value) -> Any:
        """What one command answers. Raises RedisUnavailableError."""
        return await self._asked(_Ask(command))

    async def evaluate(self, script: str, keys: Sequence[Value], args: Sequence[Value]) -> Any:
        """What a Lua script answers, which Redis keeps by its hash. Raises RedisUnavailableError."""
        return await self._asked(_evaluation(script, keys, args))

    def ask(self, script: str, keys: Sequence[Value], args: Sequence[Value]) -> "asyncio.Future[Any]":
        """`evaluate` for who has more to ask before waiting, so that it goes in one round trip. Raises as that does."""
        return self._asked(_evaluation(script, keys, args))

    def tell(self, script: str, keys: Sequence[Value], args: Sequence[Value]) -> None:
        """Run a script of which nobody waits to hear; it runs before all that is asked later."""
        if self._link is not None:
            self._link.leave(_evaluation(script, keys, args))

    def _asked(self, ask: "_Ask") -> "asyncio.Future[Any]":
        if self._link is None:
            raise RedisUnavailableError(self._reason)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._link.send(ask._replace(done=done))
        return done

    async def _stay_connected(self, tried: asyncio.Event) -> None:
        while True:
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    self._link = await self._address.connect()
                tried.set()
                self._reason = await asyncio.shield(self._link.lost)
                self._link = None
            except (OSError, TimeoutError, RedisUnavailableError) as error:
                self._reason = str(error) or "it does not answer in time"
                tried.set()
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                _log.warning("redis is gone; what needs it is left out", reason=self._reason)


# The stub says that a command is a tuple of one.
_packed: Callable[[tuple[Value, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # see above


class _Ask(NamedTuple):
    """A command, who waits for it, and what to send instead when Redis does not know the script's hash."""

    command: tuple[Value, ...]
    done: "asyncio.Future[Any] | None" = None
    instead: tuple[Value, ...] | None = None


def _evaluation(script: str, keys: Sequence[Value], args: Sequence[Value]) -> _Ask:
    rest = (len(keys), *keys, *args)
    return _Ask(("EVALSHA", _sha1(script), *rest), instead=("EVAL", script, *rest))


@lru_cache
def _sha1(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class _Link(asyncio.Protocol):
    """One connection. `lost` says why once it is no more; everything under way has failed by then."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._waiting: list[_Ask] = []
        self._under_way: deque[_Ask] = deque()
        self._limit: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._due = False
        self._scripts: set[Value] = set()

    def send(self, ask: _Ask) -> None:
        """Ask with the next round trip, which begins at once when none is under way."""
        if self.lost.done():
            # It ended in this very turn of the loop, and its owner has not noticed yet.
            if ask.done is not None:
                ask.done.set_exception(RedisUnavailableError(self.lost.result()))
            return
        if not self._due and not self._under_way:
            # Not before everybody else who is ready in this turn of the loop has asked too.
            self._due = True
            self._loop.call_soon(self._begin)
        self._waiting.append(ask)

    def leave(self, ask: _Ask) -> None:
        """Send what nobody waits for: with the next round trip, or by itself when none begins in a moment."""
        if self.lost.done():
            return
        if not self._waiting and not self._under_way:
            self._loop.call_later(_TOLD_WITHIN_SECONDS, self._begin)
        self._waiting.append(ask)

    async def close(self) -> None:
        """Let what was asked be answered, then end the connection."""
        if self._waiting or self._under_way:
            self._idle = self._loop.create_future()
            await self._idle
        self.end("it was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are such in all but name.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while self._under_way and (reply := self._reader.gets()) is not False:
                self._answer(self._under_way.popleft(), reply)
        except hiredis.ProtocolError as error:
            self.end(str(error))
        if not self._under_way:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(str(exc or "it closed the connection"))

    def _begin(self) -> None:
        self._due = False
        if self._transport is None or self._under_way or not self._waiting:
            return
        self._under_way.extend(self._waiting)
        self._waiting.clear()
        self._transport.write(b"".join([_packed(self._command(ask)) for ask in self._under_way]))
        self._limit = self._loop.call_later(_TIMEOUT_SECONDS, self.end, "it does not answer in time")

    def _command(self, ask: _Ask) -> tuple[Value, ...]:
        """What to send: a script whole when it is new here, so that it runs in its turn, and then by its hash."""
        if ask.instead is None or ask.command[1] in self._scripts:
            return ask.command
        self._scripts.add(ask.command[1])
        return ask.instead

    def _rest(self) -> None:
        """A round trip is over: begin the next, if there is anything to ask."""
        if self._limit is not None:
            self._limit.cancel()
        if self._waiting:
            self._begin()
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _answer(self, ask: _Ask, reply: Any) -> None:
        refused = isinstance(reply, hiredis.ReplyError)
        if refused and ask.instead is not None and str(reply).startswith("NOSCRIPT"):
            self._waiting.append(_Ask(ask.instead, ask.done))
        elif ask.done is None or ask.done.done():
            return
        elif refused:
            ask.done.set_exception(RedisUnavailableError(str(reply)))
        else:
            ask.done.set_result(reply)

    def end(self, reason: str) -> None:
        """Break the connection off, and fail what is under way."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        for ask in (*self._under_way, *self._waiting):
            if ask.done is not None and not ask.done.done():
                ask.done.set_exception(RedisUnavailableError(reason))
        self._waiting.clear()
        self._under_way.clear()
        self._rest()


class _Address:
    """What a URL says: redis://, rediss:// or unix://, with login, database and the options of TLS."""

    def __init__(self, url: str) -> None:
        self._options: dict[str, Any] = dict(parse_url(url))

    async def connect(self) -> _Link:
        """A connection that answers. Raises OSError and RedisUnavailableError."""
        loop, options = asyncio.get_running_loop(), self._options
        if path := options.get("path"):
            _transport, link = await loop.create_unix_connection(_Link, path)
        else:
            host, port = options.get("host", "localhost"), options.get("port", 6379)
            _transport, link = await loop.create_connection(_Link, host, port, ssl=self._tls())
        try:
            for command in self._greeting():
                done: asyncio.Future[Any] = loop.create_future()
                link.send(_Ask(command, done))
                await done
        except BaseException:
            link.end("it did not greet back")
            raise
        return link

    def _tls(self) -> ssl.SSLContext | None:
        if self._options.get("connection_class") is not SSLConnection:
            return None
        given = {name: value for name, value in self._options.items() if name != "connection_class"}
        context: ssl.SSLContext = SSLConnection(**given).ssl_context.get()
        return context

    def _greeting(self) -> list[tuple[Value, ...]]:
        user, password, database = (self._options.get(name) for name in ("username", "password", "db"))
        login = [("AUTH", *([user] if user else []), password)] if password else []
        return [*login, *([("SELECT", database)] if database else []), ("PING",)]
