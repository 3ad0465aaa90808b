"""Each action's twin among the REST routes: the same function serves both, on a request made from the frame."""

import uuid

import orjson
from fastapi import Request, Response
from starlette.types import Message
from starlette.websockets import WebSocket

from loam_gateway.auth import check_scope
from loam_gateway.completions.request import parse
from loam_gateway.directory.model import Principal
from loam_gateway.pipelines.answers import ChatAsk
from loam_gateway.pipelines.routes_public import stream_chat
from loam_gateway.public.simple import stream_plainly
from loam_gateway.public.ws.frames import Action, Resumption
from loam_gateway.state import State
from loam_gateway.streams import opt_in
from loam_shared.errors import InvalidRequestError, LoamError


class NotServedError(LoamError):
    """An action that the contract has and this platform does not serve yet."""

    status, code, type = 400, "not_served", "invalid_request_error"


class Asked:
    """One action of one caller, with a request id of its own."""

    def __init__(self, websocket: WebSocket, deps: State, action: Action) -> None:
        self._websocket = websocket
        self._deps = deps
        self._action = action
        self.request_id = str(uuid.uuid4())

    async def answer(self, caller: Principal) -> Response:
        """What the twin answers. Raises LoamError as it does."""
        match self._action.action:
            case "complete":
                return await self._complete(caller)
            case "chat":
                return await self._chat(caller)
            case "resume":
                wanted = parse(Resumption, orjson.dumps(self._action.body))
                owner = opt_in.owner_of(caller)
                return await self._deps.streams.resume(owner, wanted.stream_id, wanted.last_event_id)
            case other:
                raise NotServedError(f"there are no actions {other!r} here yet", param="action")

    async def _complete(self, caller: Principal) -> Response:
        check_scope(caller, "ai:complete")
        return await stream_plainly(self._request("/v1/stream", self._action.body), self._deps, caller)

    async def _chat(self, caller: Principal) -> Response:
        check_scope(caller, "rag:query")
        body = self._action.body | {"stream": True}
        pipeline = body.pop("pipeline", None)
        if not isinstance(pipeline, str):
            raise InvalidRequestError("pipeline: name the pipeline to ask", param="pipeline")
        ask = parse(ChatAsk, orjson.dumps(body))
        request = self._request(f"/v1/pipelines/{pipeline}/chat", body)
        return await stream_chat(request, pipeline, caller, ask, self._deps)

    def _request(self, path: str, body: dict[str, object]) -> Request:
        """The action as the request that it would be over HTTP."""
        resume = "true" if self._action.resume else None
        given = {opt_in.HEADER: resume, "idempotency-key": self._action.idempotency_key}
        headers = [(name.encode(), value.encode()) for name, value in given.items() if value is not None]
        kept = {name: self._websocket.scope[name] for name in ("app", "server", "client")}
        scope = kept | {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
        scope |= {"scheme": "http", "state": {"request_id": self.request_id}}

        async def receive() -> Message:
            return {"type": "http.request", "body": orjson.dumps(body), "more_body": False}

        return Request(scope, receive)
