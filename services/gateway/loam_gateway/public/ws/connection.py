"""One open WebSocket: its actions at once, each in a task; all of them end, settled, when it closes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import structlog
from fastapi import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from loam_gateway.adapters import postgres
from loam_gateway.auth import key_owner
from loam_gateway.directory.model import Principal
from loam_gateway.failures import told_failure
from loam_gateway.public.ws import frames
from loam_gateway.public.ws.frames import Action
from loam_gateway.public.ws.twins import Asked
from loam_gateway.sse import EventStream
from loam_gateway.state import State
from loam_gateway.streams.opt_in import owner_of
from loam_gateway.streams.room import STREAM_ID
from loam_shared.errors import (
    ForbiddenError,
    InvalidApiKeyError,
    InvalidRequestError,
    LoamError,
    RateLimitedError,
    UnavailableError,
)

REVOKED, SUSPENDED = 4401, 4403
_POLICY, _RESTARTS, _ABNORMAL = 1008, 1012, 1006
_AT_ONCE = 16
_BAD_FRAMES = 20
# A drain leaves what was cut the rest of its time for the settlement.
_DRAINED_FOR = 0.8
# What happens to keys is told at once; should that be lost, it is looked up this often.
_LOOK_SECONDS = 30.0
# The directory may say for a moment that a key is good which has just expired.
_EXPIRY_SECONDS = 0.9
_FACTS = {"x-loam-model": "model", "x-loam-cache": "cache", "x-loam-template": "template", STREAM_ID: "streamId"}
_log = structlog.get_logger()


class _ClosedError(Exception):
    """Why the connection ends."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Connection:
    """Serves a WebSocket that was accepted, until either side closes it. `digest` is its key's SHA-256."""

    def __init__(self, websocket: WebSocket, deps: State, digest: str) -> None:
        self._websocket = websocket
        self._deps = deps
        self._digest = digest
        self._running: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._bad_frames = 0

    async def serve(self) -> None:
        """Returns once it is closed and everything that ran over it is settled."""
        close = _ClosedError(_ABNORMAL, "")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._drain())
                group.create_task(self._receive(group))
        except* _ClosedError as closed:
            close = next(error for error in closed.exceptions if isinstance(error, _ClosedError))
        if close.code != _ABNORMAL:
            with contextlib.suppress(WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(self._deps.settings.websocket_stall_seconds):
                    await self._websocket.close(close.code, close.reason)

    async def _watch(self) -> None:
        """Close as soon as the key is revoked or expired, or its tenant suspended."""
        while True:
            change, seconds = self._deps.directory.change, _LOOK_SECONDS
            try:
                seconds = _until(await key_owner(self._digest, self._deps))
            except InvalidApiKeyError as error:
                raise _ClosedError(REVOKED, error.message) from error
            except ForbiddenError as error:
                raise _ClosedError(SUSPENDED, error.message) from error
            except postgres.FAILURES as error:
                # Nothing costs anything without PostgreSQL.
                _log.warning("a WebSocket's key cannot be looked up", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(change.wait(), seconds)

    async def _receive(self, group: asyncio.TaskGroup) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise _ClosedError(_ABNORMAL, "the client closed")
            data: str | bytes = message.get("text") or message.get("bytes") or ""
            try:
                await self._take(frames.action_of(data), group)
                self._bad_frames = 0
            except InvalidRequestError as error:
                await self._refuse(frames.id_of(data), error)

    async def _drain(self) -> None:
        """When the gateway stops: let what runs come to its end, within the time that a stop has, and close."""
        await self._deps.sockets.draining.wait()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self._deps.settings.drain_timeout * _DRAINED_FOR)
        raise _ClosedError(_RESTARTS, "the gateway restarts; connect again")

    async def _refuse(self, action_id: str | None, error: LoamError) -> None:
        self._bad_frames += 1
        await self._send(frames.told_error(action_id, error, ""))
        if self._bad_frames >= _BAD_FRAMES:
            raise _ClosedError(_POLICY, f"{_BAD_FRAMES} frames in a row that are no actions")

    async def _take(self, action: Action, group: asyncio.TaskGroup) -> None:
        match action.action:
            case "ping":
                await self._send(frames.told(action.id, "pong"))
            case "cancel":
                await self._cancel(action.id)
            case _:
                await self._begin(action, group)

    async def _cancel(self, action_id: str) -> None:
        task = self._running.get(action_id)
        if task is None:
            raise InvalidRequestError("id: no action with this id is under way", param="id")
        # Only once: a second cancellation would break into the settlement.
        if action_id not in self._cancelled:
            self._cancelled.add(action_id)
            task.cancel()

    async def _begin(self, action: Action, group: asyncio.TaskGroup) -> None:
        if action.id in self._running:
            raise InvalidRequestError("id: an action with this id is still under way", param="id")
        if refusal := self._no_room():
            await self._send(frames.told_error(action.id, refusal, ""))
            return
        task = group.create_task(self._act(action))
        self._running[action.id] = task
        task.add_done_callback(lambda _task: self._forget(action.id))

    def _no_room(self) -> LoamError | None:
        if self._deps.sockets.draining.is_set():
            return UnavailableError("this gateway is shutting down; connect again", retry_after=1)
        if len(self._running) >= _AT_ONCE:
            return RateLimitedError(f"at most {_AT_ONCE} actions at once on one connection", retry_after=1)
        return None

    def _forget(self, action_id: str) -> None:
        del self._running[action_id]
        self._cancelled.discard(action_id)

    async def _act(self, action: Action) -> None:
        asked = Asked(self._websocket, self._deps, action)
        status = 200
        try:
            await self._answer(action.id, asked)
        except LoamError as error:
            status = error.status
            await self._send(frames.told_error(action.id, error, asked.request_id))
        except asyncio.CancelledError:
            status = 499
            if action.id not in self._cancelled:
                raise
            await self._send(frames.told(action.id, "done", cancelled=True))
        finally:
            self._deps.metrics.requests.labels("public", f"/ws {action.action}", str(status)).inc()

    async def _answer(self, action_id: str, asked: Asked) -> None:
        with told_failure():
            caller = await key_owner(self._digest, self._deps)
            response = await asked.answer(caller)
            stream_id = response.headers.get(STREAM_ID)
            try:
                async with contextlib.aclosing(self._frames(action_id, response, asked.request_id)) as sent:
                    async for text in sent:
                        await self._send(text)
            except asyncio.CancelledError:
                if stream_id is not None and action_id in self._cancelled:
                    await self._deps.streams.cancel(owner_of(caller), stream_id)
                raise

    async def _frames(self, action_id: str, response: Response, request_id: str) -> AsyncGenerator[str, None]:
        """The answer as frames, after one that says how it began.

        That one comes without waiting: a generator that never ran could not end what makes the answer either.
        """
        facts = {fact: response.headers[name] for name, fact in _FACTS.items() if name in response.headers}
        try:
            yield frames.told(action_id, "started", requestId=request_id, **facts)
            if isinstance(response, EventStream):
                async with contextlib.aclosing(response.events(request_id)) as events:
                    async for event in events:
                        yield frames.passed_on(action_id, event)
            else:
                # One that was kept is all there already.
                for event in filter(None, bytes(response.body).split(b"\n\n")):
                    yield frames.passed_on(action_id, event)
        finally:
            if isinstance(response, EventStream):
                await response.aclose()

    async def _send(self, text: str) -> None:
        """Send a frame, as slowly as the client reads. Raises _ClosedError when it does not read at all."""
        try:
            async with asyncio.timeout(self._deps.settings.websocket_stall_seconds):
                await self._websocket.send({"type": "websocket.send", "text": text})
        except TimeoutError as error:
            raise _ClosedError(_ABNORMAL, "the client does not read") from error
        except (WebSocketDisconnect, RuntimeError) as error:
            raise _ClosedError(_ABNORMAL, "the client is gone") from error


def _until(caller: Principal) -> float:
    """Seconds until the caller's key has to be looked up again."""
    if caller.expires_at is None:
        return _LOOK_SECONDS
    left = (caller.expires_at - datetime.now(UTC)).total_seconds()
    return min(_LOOK_SECONDS, max(left, 0) + _EXPIRY_SECONDS)
