"""What goes over a WebSocket: JSON objects both ways, each with the id of the action that it belongs to."""

from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from loam_gateway.completions.request import parse
from loam_shared.contracts import Wire
from loam_shared.errors import LoamError, render

MAX_ID = 64
_NO_DATA = b"{}"


class Action(BaseModel):
    """A client's frame. `resume` and `idempotency_key` stand for the headers of HTTP; all else is the action's body."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True)

    id: str = Field(min_length=1, max_length=MAX_ID)
    action: Literal["complete", "chat", "agent", "resume", "cancel", "ping"]
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")
    resume: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """The fields that are the action's own."""
        return dict(self.model_extra or {})


class Resumption(Wire):
    """The body of `resume`: which stream to go on with, after which of its events."""

    stream_id: str = Field(min_length=1, max_length=64)
    last_event_id: int = Field(default=0, ge=0, le=2**53)


def action_of(data: str | bytes) -> Action:
    """A frame's action. Raises InvalidRequestError that names the field."""
    return parse(Action, data.encode() if isinstance(data, str) else data)


def id_of(data: str | bytes) -> str | None:
    """The id in a frame that is no action otherwise, where it has one."""
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    given = frame.get("id") if isinstance(frame, dict) else None
    return given if isinstance(given, str) and len(given) <= MAX_ID else None


def told(action_id: str | None, event: str, **facts: Any) -> str:
    """An event of our own making."""
    return orjson.dumps({"id": action_id, "event": event} | facts).decode()


def told_error(action_id: str | None, error: LoamError, request_id: str) -> str:
    """The event `error`, in the shape that errors have everywhere."""
    return told(action_id, "error", **render(error, request_id))


def passed_on(action_id: str, sent_event: bytes) -> str:
    """A server-sent event as a frame: its fields beside the action's id, and its own number if it has one."""
    fields = dict(line.split(b": ", 1) for line in sent_event.splitlines() if line)
    head = b'{"id":%b,"event":"%b"' % (orjson.dumps(action_id), fields.get(b"event", b"chunk"))
    if number := fields.get(b"id"):
        head += b',"eventId":%b' % number
    data = fields[b"data"]
    return (head + (b"}" if data == _NO_DATA else b"," + data[1:])).decode()
