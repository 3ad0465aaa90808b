"""Nothing of one tenant shows in another's answers, tried over every route of the OpenAPI schema.

The cases come from the schema. A parameter that names a thing of a tenant has to be in `THINGS`, or else the tests
fail: whoever adds a route says there how another tenant's thing looks.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ..services.gateway._platform import PIPELINE, GatewayProcess, TestTenant, eventually, say
from .test_schema import SCOPES

THINGS = ("name", "document_id", "key_id", "stream_id")
# Parameters that name nothing of anybody's.
HARMLESS = {
    "limit",
    "cursor",
    "overlapHours",
    "from",
    "to",
    "groupBy",
    "live",
    "last-event-id",
    "Idempotency-Key",
    "x-loam-resume",
}
# Fields of bodies that name a thing of a tenant.
BODY_THINGS = {"POST /v1/complete": "template", "POST /v1/stream": "template"}
# Words that only the other tenant's things are made of.
PROMPT, DOCUMENT, USER, CAP, SHARED_KEY = "marigold", "tulips.md", "rosa@b.example", "4321.09", "shared-key"
TEMPLATE: dict[str, Any] = {
    "name": "daffodil",
    "version": 1,
    "variables": {"properties": {}},
    "messages": [{"role": "user", "content": "Say something about the daffodil."}],
}


@dataclass
class Side:
    """A tenant with one of each thing. `never` are things of the same shape that nobody ever had."""

    tenant: TestTenant
    key: str
    http: Any
    things: dict[str, str] = field(default_factory=dict)

    @property
    def never(self) -> dict[str, str]:
        return {kind: _unlike(thing) for kind, thing in self.things.items()}


def _unlike(thing: str) -> str:
    """As long and of the same characters, and another one."""
    return thing[:4] + thing[4:].translate(str.maketrans("0123456789abcdefghijklmno", "1234567890bcdefghijklmnoa"))


def furnished(gateway: GatewayProcess, pipeline: str, document: str) -> Side:
    tenant = gateway.new_tenant(budget={"monthlyUsd": CAP if document == DOCUMENT else "99"})
    key = tenant.new_key(f"key-of-{pipeline}", scopes=SCOPES, user=USER if document == DOCUMENT else None)
    side = Side(tenant, key, tenant.http(key))
    spec = {"uid": pipeline, "spec": PIPELINE, "endpoint": "http://127.0.0.1:1"}
    assert gateway.put(f"/tenants/{tenant.name}/pipelines/{pipeline}", spec).is_success
    uploaded = side.http.post(f"/v1/pipelines/{pipeline}/documents", json={"name": document, "text": PROMPT})
    made = side.http.post("/v1/auth/keys", json={"name": f"made by {pipeline}", "scopes": ["ai:complete"]})
    begun = side.http.post(
        "/v1/chat/completions",
        json={"model": "haiku", "messages": say(f"about {document}"), "stream": True},
        headers={"x-loam-resume": "true"},
    )
    side.things = {
        "name": pipeline,
        "document_id": uploaded.json()["documentId"],
        "key_id": made.json()["keyId"],
        "stream_id": begun.headers["x-loam-stream-id"],
    }
    return side


@pytest.fixture(scope="module")
def theirs(gateway):
    side = furnished(gateway, "flowerbed", DOCUMENT)
    templates = {"uid": side.tenant.uid, "templates": [TEMPLATE]}
    assert gateway.put(f"/tenants/{side.tenant.name}/templates", templates).is_success
    assert side.http.post("/v1/complete", json={"template": "daffodil"}).status_code == 200
    yield side
    side.tenant.close()


@pytest.fixture(scope="module")
def ours(gateway):
    side = furnished(gateway, "workbench", "hammers.md")
    yield side
    side.tenant.close()


@pytest.fixture(scope="module")
def operations(theirs) -> dict[str, dict[str, Any]]:
    paths = theirs.http.get("/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}": found for path, methods in paths.items() for method, found in methods.items()}


def example(operation: dict[str, Any]) -> Any:
    content = operation.get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("example")


def traces_of(side: Side) -> list[str]:
    """What must show nowhere else."""
    own = [*side.things.values(), side.tenant.name, side.tenant.uid, side.key, f"key-of-{side.things['name']}"]
    return [*own, PROMPT, DOCUMENT, USER, CAP, "daffodil"]


def named(operation: dict[str, Any], place: str) -> list[str]:
    return [given["name"] for given in operation.get("parameters", ()) if given["in"] == place]


def foreign(operation: dict[str, Any], ours: Side, theirs: Side) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Every way to mix own and foreign things in a path, each with its twin that names what never was."""
    kinds = named(operation, "path")
    for count in range(1, len(kinds) + 1):
        for chosen in itertools.combinations(kinds, count):
            mine = {kind: ours.things[kind] for kind in kinds if kind not in chosen}
            yield (
                mine | {kind: theirs.things[kind] for kind in chosen},
                mine | {kind: theirs.never[kind] for kind in chosen},
            )


def test_every_parameter_is_known_to_name_a_tenants_thing_or_nothing(operations):
    for name, operation in operations.items():
        assert set(named(operation, "path")) <= set(THINGS), f"{name}: say in THINGS what its path names"
        others = {*named(operation, "query"), *named(operation, "header")}
        assert others <= HARMLESS, f"{name}: say what {others - HARMLESS} name"


def ask(side: Side, name: str, things: dict[str, str], body: Any, **headers: str) -> Any:
    method, path = name.split(" ")
    return side.http.request(
        method,
        path.format(**things),
        json=body,
        headers={"x-request-id": "probe", "cache-control": "no-store"} | headers,
    )


def seen(answer: Any, things: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
    """All that can be told from an answer, but for the names that were in the question."""
    body = answer.content
    for kind, thing in things.items():
        body = body.replace(thing.encode(), kind.encode())
    return answer.status_code, body, {key: value for key, value in answer.headers.items() if key != "date"}


def test_another_tenants_thing_looks_like_one_that_never_was(operations, ours, theirs):
    tried = 0
    for name, operation in operations.items():
        for things, never in foreign(operation, ours, theirs):
            found = ask(ours, name, things, example(operation))
            twin = ask(ours, name, never, example(operation))
            assert found.status_code == 404, f"{name} {things}: {found.text}"
            assert seen(found, things) == seen(twin, never), name
            tried += 1
    assert tried >= 14


def test_another_tenants_template_looks_like_one_that_never_was(operations, ours):
    for name, thing in BODY_THINGS.items():
        body = {"messages": say("hello")}
        found = ask(ours, name, {}, body | {thing: "daffodil"})
        twin = ask(ours, name, {}, body | {thing: "daffodyl"})
        assert found.status_code == twin.status_code == 404, found.text
        assert found.text.replace("daffodil", "x") == twin.text.replace("daffodyl", "x")


def test_no_answer_holds_anything_of_another_tenant(operations, ours, theirs):
    for name, operation in operations.items():
        things = {kind: ours.things[kind] for kind in named(operation, "path")}
        # What is deleted here is one of our own, and the last to go.
        if name.startswith("DELETE"):
            continue
        for query in ("", "?groupBy=model,user,key,day,pipeline,agent") if name == "GET /v1/usage" else ("",):
            answer = ask(ours, name + query, things, example(operation))
            told = answer.text + str(answer.headers)
            assert not [word for word in traces_of(theirs) if word in told], f"{name}: {told}"


def test_an_idempotency_key_of_another_tenant_is_nobodys(operations, ours, theirs):
    repeatable = [name for name, operation in operations.items() if "Idempotency-Key" in named(operation, "header")]
    assert len(repeatable) >= 8
    for name in repeatable:
        body = example(operations[name])
        if "{name}" in name:
            continue
        first = ask(theirs, name, theirs.things, body, **{"idempotency-key": SHARED_KEY + name[-5:].strip("/")})
        second = ask(ours, name, ours.things, body, **{"idempotency-key": SHARED_KEY + name[-5:].strip("/")})
        assert first.status_code == second.status_code, f"{name}: {first.text} {second.text}"
        assert "x-loam-replayed" not in second.headers, name
        if name == "POST /v1/auth/keys":
            assert first.json()["apiKey"] != second.json()["apiKey"]


def test_an_answer_in_the_cache_is_served_to_its_own_tenant_only(ours, theirs):
    body = {"model": "haiku", "messages": say(f"{PROMPT} in the cache")}

    def state(side: Side) -> str:
        found: str = side.http.post("/v1/chat/completions", json=body).headers["x-loam-cache"]
        return found

    eventually(lambda: state(theirs) == "hit", "the answer was not kept")
    assert state(ours) == "miss"


def test_what_another_tenant_tries_changes_nothing(operations, ours, theirs):
    # Health is nobody's, usage grows by what the other tests ask, and a stream is read once.
    passing = ("GET /v1/health", "GET /v1/usage", "GET /v1/streams")
    reads = [name for name in operations if name.startswith("GET") and not name.startswith(passing)]

    def whole() -> dict[str, Any]:
        return {name: ask(theirs, name, theirs.things, None).json() for name in reads}

    before = whole()
    for name, operation in operations.items():
        if not name.startswith("GET"):
            for things, _ in foreign(operation, ours, theirs):
                ask(ours, name, things, example(operation))
    assert whole() == before
