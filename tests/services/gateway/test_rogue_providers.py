"""What a provider says is not to be trusted either: whatever comes, the ledger, the process and its callers live on."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from typing import Any

import httpx2 as httpx
import pytest

from .._servers.embedded import HOST
from ._platform import GatewayProcess, say

ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY held_at"
LIMIT = 100
MEGABYTE = b"a" * 2**20


@dataclass
class Rogue:
    """A server of OpenAI's API that says whatever it is told to say. A body without end is no list."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = ()
    asked: list[Message] = field(default_factory=list)

    def says(self, answer: Any, status: int = 200, **headers: str) -> None:
        self.status, self.headers, self.body = status, headers, [json.dumps(answer).encode()]

    def streams(self, *chunks: Any) -> None:
        self.status, self.headers = 200, {"content-type": "text/event-stream"}
        self.body = [*(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks), b"data: [DONE]\n\n"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """That a gateway hangs up is what is wanted."""


@pytest.fixture(scope="module")
def rogue() -> Iterator[Rogue]:
    told = Rogue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            told.asked.append(self.headers)
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            for part in told.body:
                self.wfile.write(part)

        def log_message(self, *_: Any) -> None:
            pass

    server = _Server((HOST, 0), Handler)
    told.url = f"http://{HOST}:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def gateway(folder, servers, rogue) -> Iterator[GatewayProcess]:
    """A gateway with its cache on, as it is by default, and the rogue's models."""
    process = GatewayProcess(folder, replace(servers, more={"LOAM_CACHE_SECONDS": "60"})).start()
    here = {"provider": "OpenAI", "modelId": "m", "baseUrl": rogue.url, "maxOutputTokens": LIMIT}
    price = {"inputPerMillion": "1", "outputPerMillion": "5"}
    chat = here | {"capabilities": ["Chat", "Stream", "Tools"], "price": price}
    process.model("rogue", chat | {"uid": "rogue", "credential": "platform-rogue"})
    process.model("keyless", chat | {"uid": "keyless"})
    embed = {"uid": "vectors", "capabilities": ["Embed"], "price": {"inputPerMillion": "1"}, "dimensions": 4}
    process.model("vectors", here | embed | {"credential": "platform-rogue"})
    yield process
    process.stop()


@pytest.fixture
def tenant(gateway):
    made = gateway.new_tenant(models=["rogue", "keyless", "vectors"], budget={"monthlyUsd": "10"})
    yield made
    made.close()


def ask(tenant, path="/v1/chat/completions", **more) -> httpx.Response:
    body = {"model": "rogue", "messages": say("hi")} | more
    return tenant.http().post(path, json=body)


def answer(usage: Any, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"} | message, "finish_reason": "stop"}
    return {"choices": [choice], "usage": usage}


def delta(**said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": None}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

ABSURD = [
    {"prompt_tokens": -1_000_000, "completion_tokens": 1},
    {"prompt_tokens": 1, "completion_tokens": -1_000_000},
    {"prompt_tokens": 1, "completion_tokens": 10**15},
    {"prompt_tokens": 1, "completion_tokens": 1.5},
    {"prompt_tokens": "1", "completion_tokens": 1},
    {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -(10**9)}},
    {"prompt_tokens": 1, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": -1}},
    [1],
]


@pytest.mark.parametrize("usage", ABSURD, ids=json.dumps)
@pytest.mark.parametrize("stream", [False, True])
def test_an_absurd_usage_is_replaced_by_the_bounds(stream, usage, rogue, tenant, query):
    if stream:
        rogue.streams(delta(content="yes"), END, {"choices": [], "usage": usage})
    else:
        rogue.says(answer(usage))
    told = ask(tenant, stream=stream)
    assert told.status_code == 200
    assert "yes" in told.text
    [entry] = query(ENTRIES, tenant.name)
    assert entry["estimated"]
    assert 0 < entry["cost"] < 10**7


@pytest.mark.parametrize(
    "piece",
    [
        {"tool_calls": None, "content": "yes"},
        {"tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": None}}]},
        {"tool_calls": [{"index": 0, "id": "a"}]},
        {"content": ["yes"]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/stream"])
def test_a_stream_in_another_servers_dialect_is_passed_on_though_it_cannot_be_kept(path, piece, rogue, tenant):
    rogue.streams(delta(**piece), END, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    more = {"stream": True} if path == "/v1/chat/completions" else {}
    told = ask(tenant, path, **more)
    assert "error" not in told.text
    assert told.text.rstrip().endswith("data: [DONE]" if more else "data: {}")


@pytest.mark.parametrize(
    "chunk",
    [[], {"choices": {}}, {"choices": [5]}, {"choices": [{"delta": "yes and no"}]}, {"choices": "yes"}, delta() | END],
    ids=json.dumps,
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/stream"])
def test_what_is_no_stream_is_the_providers_fault(path, chunk, rogue, tenant, gateway):
    rogue.streams(delta(content="yes"), chunk)
    told = ask(tenant, path, **({"stream": True} if path == "/v1/chat/completions" else {}))
    assert "internal" not in told.text
    assert "unexpected error" not in gateway.log()


@pytest.mark.parametrize("body", [{}, [], {"data": [{}]}, {"data": 5}, {"embeddings": 5}, {"usage": 5, "data": []}])
def test_vectors_that_are_none_are_the_providers_fault(body, rogue, tenant):
    rogue.says(body)
    told = _embed(tenant)
    assert (told.status_code, told.json()["error"]["code"]) == (502, "provider_error")


@pytest.mark.parametrize("counted", [-(10**6), 10**15, "7", 1.5])
def test_an_absurd_count_of_embedded_tokens_is_replaced_by_the_bound(counted, rogue, tenant, query):
    rogue.says({"data": [{"index": 0, "embedding": [0, 0, 0, 1]}], "usage": {"prompt_tokens": counted}})
    assert _embed(tenant).status_code == 200
    [entry] = query(ENTRIES, tenant.name)
    assert entry["estimated"]
    assert 0 < entry["input_tokens"] < 100


def _embed(tenant) -> httpx.Response:
    return tenant.http().post("/v1/embeddings", json={"model": "vectors", "input": "hi"})


@pytest.mark.parametrize("wait", ["9" * 400, "-1", "1e9", "²"])
def test_an_absurd_time_to_wait_is_none(wait, rogue, tenant):
    rogue.says({"error": {"message": "slow down"}}, 429, retry_after=wait)
    told = ask(tenant)
    assert told.status_code == 429
    assert 1 <= int(told.headers["retry-after"]) <= 3600


def test_the_credential_does_not_follow_a_redirect(rogue, tenant):
    rogue.asked.clear()
    rogue.says({}, 307, location=f"{rogue.url}/elsewhere")
    assert ask(tenant).status_code == 502
    assert len(rogue.asked) == 1


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end_is_given_up(status, rogue, tenant):
    rogue.status, rogue.headers, rogue.body = status, {}, repeat(MEGABYTE)
    assert ask(tenant).status_code == 502


@pytest.mark.parametrize("line", [MEGABYTE, b"data: " + MEGABYTE + b"\n"], ids=["line", "event"])
def test_an_event_without_end_is_given_up(line, rogue, tenant):
    rogue.status, rogue.headers, rogue.body = 200, {}, chain([b"data: "], repeat(line))
    told = ask(tenant, stream=True)
    assert told.status_code == 502


def test_an_own_key_does_not_make_the_platforms_own_server_free(gateway, rogue, query):
    own = gateway.new_tenant(
        models=["rogue", "keyless"], providerCredentials=[{"provider": "OpenAI", "secret": "anything"}]
    )
    rogue.says(answer({"prompt_tokens": 10, "completion_tokens": 10}))
    rogue.asked.clear()
    assert ask(own, model="keyless").status_code == 200
    assert ask(own, model="rogue").status_code == 200
    keyless, keyed = query(ENTRIES, own.name)
    assert (keyless["byok"], keyless["cost"]) == (False, 60_000)
    assert (keyed["byok"], keyed["cost"]) == (True, 0)
    assert ["anything" in headers.get("Authorization", "") for headers in rogue.asked] == [False, True]
    own.close()
