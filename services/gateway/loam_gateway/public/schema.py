"""``GET /openapi.json``: the public listener's OpenAPI schema, complete: bodies, answers, errors, headers, credentials.

FastAPI knows the paths, their parameters and some bodies. Routes that read and write their bodies themselves, for
speed, are described here. A route without a description fails the conformance tests.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import metadata
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.routing import BaseRoute

from loam_gateway.completions.embeddings import EmbeddingRequest
from loam_gateway.completions.request import ChatRequest
from loam_gateway.pipelines.uploads import InlineDocument
from loam_gateway.public import shapes
from loam_gateway.public.keys import NewKey
from loam_gateway.public.simple import Ask, EmbedAsk
from loam_gateway.public.usage import BudgetPut

router = APIRouter()
_TITLE, _METHODS = "Loam", ("get", "put", "post", "delete", "patch")
_REF = "#/components/schemas/{model}"
_JSON, _EVENTS, _FORM = "application/json", "text/event-stream", "multipart/form-data"
_Schema = dict[str, Any]


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """Hand out the schema."""
    return Response(_encoded(request.app), media_type=_JSON)


@functools.cache
def _encoded(app: FastAPI) -> bytes:
    """Built when it is first asked for, which takes a while, and kept."""
    return orjson.dumps(document(app.routes))


@dataclass(frozen=True, slots=True)
class Operation:
    """What FastAPI does not know of a route.

    `answers` are its good answers by status; `refusals` the statuses that it has besides those of every route. A
    metered one says what it cost, may be refused for want of money or room, and fails when the provider does.
    """

    tag: str
    scope: str | None = None
    body: type[BaseModel] | None = None
    answers: Mapping[int, Sequence[type[BaseModel]]] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()
    events: str | None = None
    example: Any = None
    metered: bool = False
    repeatable: bool = False
    open: bool = False


_HELLO = [{"role": "user", "content": "Say hello."}]
OPERATIONS: dict[str, Operation] = {
    "POST /v1/chat/completions": Operation(
        "OpenAI",
        "ai:complete",
        ChatRequest,
        {200: [shapes.ChatCompletion]},
        events="With `stream: true`: OpenAI's chunks, then `[DONE]`. One that fails on the way ends with an `error`.",
        example={"model": "haiku", "messages": _HELLO, "max_tokens": 64},
        metered=True,
    ),
    "POST /v1/embeddings": Operation(
        "OpenAI",
        "ai:embed",
        EmbeddingRequest,
        {200: [shapes.EmbeddingList]},
        example={"model": "embedder", "input": ["a text", "another"]},
        metered=True,
    ),
    "GET /v1/models": Operation("OpenAI", answers={200: [shapes.ModelList]}),
    "POST /v1/complete": Operation(
        "Plain",
        "ai:complete",
        Ask,
        {200: [shapes.PlainCompletion]},
        example={"messages": _HELLO, "maxTokens": 64},
        metered=True,
    ),
    "POST /v1/stream": Operation(
        "Plain",
        "ai:complete",
        Ask,
        events="The events `token`, `usage`, `done` and `error`.",
        example={"messages": _HELLO, "maxTokens": 64},
        metered=True,
    ),
    "POST /v1/embed": Operation(
        "Plain", "ai:embed", EmbedAsk, {200: [shapes.PlainEmbeddings]}, example={"input": "a text"}, metered=True
    ),
    "GET /v1/templates": Operation("Plain", answers={200: [shapes.TemplateList]}),
    "GET /v1/pipelines": Operation("Pipelines", "rag:query"),
    "GET /v1/pipelines/{name}": Operation("Pipelines", "rag:write", refusals=(404,)),
    "POST /v1/pipelines/{name}/documents": Operation(
        "Pipelines",
        "rag:write",
        InlineDocument,
        {202: [shapes.DocumentTaken, shapes.DocumentsTaken]},
        (404, 409),
        example={"name": "handbook.md", "text": "# Holidays\nEverybody has 30 days."},
        repeatable=True,
    ),
    "GET /v1/pipelines/{name}/documents": Operation("Pipelines", "rag:write", refusals=(404,)),
    "GET /v1/pipelines/{name}/documents/{document_id}": Operation("Pipelines", "rag:write", refusals=(404,)),
    "DELETE /v1/pipelines/{name}/documents/{document_id}": Operation(
        "Pipelines", "rag:write", answers={202: [shapes.DocumentTaken]}, refusals=(404, 409)
    ),
    "POST /v1/pipelines/{name}/documents/{document_id}/retry": Operation(
        "Pipelines", "rag:write", answers={202: [shapes.DocumentTaken]}, refusals=(404, 409)
    ),
    "POST /v1/pipelines/{name}/sync": Operation(
        "Pipelines", "rag:write", answers={202: [shapes.SyncQueued]}, refusals=(404,)
    ),
    "GET /v1/pipelines/{name}/versions": Operation("Pipelines", "rag:write", refusals=(404,)),
    "POST /v1/pipelines/{name}/rollback": Operation(
        "Pipelines", "rag:write", refusals=(404, 409), example={"version": 1}
    ),
    "POST /v1/pipelines/{name}/query": Operation(
        "Pipelines", "rag:query", example={"query": "How many days of holiday?"}, metered=True
    ),
    "POST /v1/pipelines/{name}/chat": Operation(
        "Pipelines",
        "rag:query",
        events="With `stream: true`: the events `token`, `citation`, `usage`, `done` and `error`.",
        example={"messages": [{"role": "user", "content": "How many days of holiday?"}]},
        metered=True,
    ),
    "POST /v1/auth/keys": Operation(
        "Keys",
        "keys:write",
        NewKey,
        {201: [shapes.NewKeySecret]},
        (409,),
        example={"name": "app", "scopes": ["ai:complete"], "monthlyBudget": "20"},
        repeatable=True,
    ),
    "GET /v1/auth/keys": Operation("Keys", "keys:write", answers={200: [shapes.KeyList]}),
    "DELETE /v1/auth/keys/{key_id}": Operation("Keys", "keys:write", refusals=(404, 409)),
    "POST /v1/auth/keys/{key_id}/rotate": Operation(
        "Keys", "keys:write", answers={200: [shapes.RotatedKeySecret]}, refusals=(404, 409), repeatable=True
    ),
    "POST /v1/auth/ws-ticket": Operation("WebSocket", answers={201: [shapes.Ticket]}),
    "GET /v1/streams/{stream_id}": Operation(
        "Streams", refusals=(404,), events="The events after the one that `last-event-id` names, and all that follow."
    ),
    "DELETE /v1/streams/{stream_id}": Operation("Streams", refusals=(404,)),
    "GET /v1/usage": Operation("Usage", "usage:read", answers={200: [shapes.UsageReport]}),
    "GET /v1/usage/budget": Operation("Usage", "usage:read", answers={200: [shapes.CapList]}),
    "PUT /v1/usage/budget": Operation(
        "Usage", "budget:write", BudgetPut, {200: [shapes.CapList]}, example={"monthlyUsd": "100"}
    ),
    "GET /v1/health": Operation("Health", answers={200: [shapes.Health], 503: [shapes.Health]}, open=True),
}

_REASONS = {
    400: "The request is malformed, or asks for something that cannot be; `param` names the field.",
    401: "No credential, or one that is unknown, expired or revoked.",
    402: "A cap has no headroom for this: which, how much is left, and when it begins anew.",
    403: "The credential is good, but not for this.",
    404: "There is no such thing. What is another tenant's looks exactly the same.",
    409: "It came before with another body, is still being worked on, or the state has moved on.",
    413: "The body is larger than the limit.",
    422: "The model has no price, so it cannot be charged.",
    429: "Too many requests, tokens or requests at once; Retry-After says when there is room.",
    502: "The model's provider refused or failed.",
    503: "Something that this needs is away for now; Retry-After says when to try again.",
    504: "It took longer than it may.",
}
_METERED = (402, 404, 409, 422, 429, 502, 504)
_METERED_HEADERS = {
    "x-loam-cost-usd": "What the call cost, in US dollars; a stream says it in its usage.",
    "x-loam-budget-remaining-usd": "What is left under the tightest cap, where there is one.",
    "x-loam-cache": "`hit` when the answer came from the response cache, else `miss`.",
    "x-loam-model": "The model that answered: the one that was named, or a fallback.",
    "x-loam-max-tokens": "The output limit that the budget left room for, where it is less than was asked.",
    "x-loam-dropped-params": "Parameters that the model does not take.",
    "x-loam-stream-id": "Names a stream that may be resumed, where that was asked for.",
}


def document(routes: Sequence[BaseRoute]) -> _Schema:
    """The OpenAPI document of the listener with these `routes`."""
    found = get_openapi(title=_TITLE, version=metadata.version("loam"), routes=routes, description=_DESCRIPTION)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for leftover in ("HTTPValidationError", "ValidationError"):
        schemas.pop(leftover, None)
    schemas |= _models()
    for path, methods in found["paths"].items():
        for method in _METHODS:
            if method in methods:
                _describe(methods[method], f"{method.upper()} {path}")
    found["components"]["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of a tenant, `loam_…`."}
    }
    found["security"] = [{"apiKey": []}]
    found["components"]["responses"] = {_refusal_name(status): _refusal(status) for status in _REASONS}
    return found


_DESCRIPTION = (
    "The one public door of Loam. The tenant comes from the API key alone; any OpenAI client works with the base URL"
    " `…/v1`. Every answer carries `x-request-id`, which names it in logs and in the ledger."
)


def _describe(found: _Schema, name: str) -> None:
    operation = OPERATIONS.get(name)
    if operation is None:
        return
    found["tags"] = [operation.tag]
    if operation.scope:
        needed = f"Needs the scope `{operation.scope}`."
        found["description"] = "\n\n".join(filter(None, (found.get("description"), needed)))
    if operation.open:
        found["security"] = []
    if operation.repeatable or operation.metered:
        found.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    if operation.metered and operation.events:
        found["parameters"].append(_RESUME)
    _add_body(found, operation)
    found["responses"] = _responses(found, operation)


def _add_body(found: _Schema, operation: Operation) -> None:
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": {_JSON: {"schema": _ref(operation.body)}}}
    if operation.body is InlineDocument:
        found["requestBody"]["content"][_FORM] = {"schema": _FILES}
    if operation.example is not None:
        found["requestBody"]["content"][_JSON]["example"] = operation.example


def _responses(found: _Schema, operation: Operation) -> _Schema:
    """The route's answers: what FastAPI knows of the good ones, else what is described; then the refusals."""
    headers = _METERED_HEADERS if operation.metered else {}
    good = {status: answer for status, answer in found["responses"].items() if status.startswith("2")}
    if operation.answers:
        good = {str(status): _answer(kinds) for status, kinds in operation.answers.items()}
    if operation.events:
        content = good["200"].get("content", {}) if operation.answers or _typed(good["200"]) else {}
        event_stream = {_EVENTS: {"schema": _EVENT | {"description": operation.events}}}
        good["200"] = {"description": "The answer.", "content": content | event_stream}
    for answer in good.values():
        answer["headers"] = _headers(headers)
    refusals = {
        str(status): {"$ref": f"#/components/responses/{_refusal_name(status)}"}
        for status in sorted(_refusals(found, operation))
        if str(status) not in good
    }
    return good | refusals


def _typed(answer: _Schema) -> bool:
    return bool(answer.get("content", {}).get(_JSON, {}).get("schema"))


def _refusals(found: _Schema, operation: Operation) -> set[int]:
    given = {400} if found.get("parameters") or "requestBody" in found else set()
    if operation.open:
        return given
    larger = {413} if "requestBody" in found else set()
    return {401, 403, 503} | given | larger | set(operation.refusals) | set(_METERED if operation.metered else ())


def _answer(kinds: Sequence[type[BaseModel]]) -> _Schema:
    schema = _ref(kinds[0]) if len(kinds) == 1 else {"anyOf": [_ref(kind) for kind in kinds]}
    return {"description": _summary(kinds[0]), "content": {_JSON: {"schema": schema}}}


def _summary(kind: type[BaseModel]) -> str:
    return (kind.__doc__ or kind.__name__).partition("\n")[0]


def _refusal_name(status: int) -> str:
    return HTTPStatus(status).name.title().replace("_", "")


def _refusal(status: int) -> _Schema:
    waits = {"retry-after": "Seconds to wait."} if status in {429, 503} else {}
    return {
        "description": _REASONS[status],
        "content": {_JSON: {"schema": _ref(shapes.Error)}},
        "headers": _headers(waits),
    }


def _headers(described: Mapping[str, str]) -> _Schema:
    all_of_them = {"x-request-id": "Names the request in logs and in the ledger.", **described}
    return {name: {"description": what, "schema": {"type": "string"}} for name, what in all_of_them.items()}


def _models() -> _Schema:
    """The schemas of all bodies and answers that are described here."""
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(shapes.Error, "serialization"): None}
    for operation in OPERATIONS.values():
        if operation.body is not None:
            wanted[operation.body, "validation"] = None
        for kinds in operation.answers.values():
            wanted |= dict.fromkeys((kind, "serialization") for kind in kinds)
    _, definitions = models_json_schema(list(wanted), ref_template=_REF)
    schemas: _Schema = definitions["$defs"]
    return schemas


def _ref(kind: type[BaseModel]) -> _Schema:
    return {"$ref": _REF.format(model=kind.__name__)}


_RESUME = {
    "name": "x-loam-resume",
    "in": "header",
    "required": False,
    "description": "`true` lets a stream outlive its connection; `x-loam-stream-id` of the answer names it.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same body is done once, and answered alike for 24 hours.",
    "schema": {"type": "string", "maxLength": 255},
}
_EVENT: _Schema = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
_FILES: _Schema = {
    "type": "object",
    "description": "One or several files, each in a part with a file name.",
    "properties": {"file": {"type": "string", "format": "binary"}},
    "required": ["file"],
}
