"""What operators see and do: traces, logs, health, draining, and changes that need no restart."""

import contextlib
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx2 as httpx
import pytest

from loam_shared.credentials import new_api_key

from .._servers import embedded
from ._collector import Collector, collecting
from ._platform import HAIKU, PIPELINE, GatewayProcess, Servers, eventually, say

CHAT = {"model": "haiku", "messages": say("hello")}
PROMPT = "the secret plan of jane@example.com, card 4111 1111 1111 1111"


@pytest.fixture(scope="module")
def collector():
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def traced(folder, servers, collector, gateway):
    """A gateway that sends traces; `gateway` has set up the models in their common database."""
    more = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "LOAM_CACHE_SECONDS": "60",
    }
    process = GatewayProcess(
        folder,
        Servers(servers.database_url, servers.redis_url, servers.s3_endpoint, servers.bedrock_url, more),
    ).start()
    yield process
    process.stop()


@pytest.fixture
def traced_tenant(traced):
    made = traced.new_tenant(rateLimit={"requestsPerMinute": 1000})
    yield made
    made.close()


def trace(collector: Collector, http, path: str, body, **more):
    """The spans of one call, once its request's own has come in, which ends last."""
    trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
    response = http.post(path, json=body, headers={"traceparent": f"00-{trace_id}-{parent}-01"}, **more)
    response.read()
    eventually(lambda: any(span.parent_id == parent for span in collector.spans(trace_id)), "no trace came in")
    spans = collector.spans(trace_id)
    [request] = [span for span in spans if span.parent_id == parent]
    return response, request, [span for span in spans if span is not request]


def ask(http, body):
    return http.post("/v1/chat/completions", json=body)


def named(spans, name):
    [found] = [span for span in spans if span.name == name]
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_trace_goes_on_from_the_callers_and_tells_every_step_of_a_call(traced_tenant, collector, stream):
    body = CHAT | {"stream": stream, "stream_options": {"include_usage": True} if stream else None}
    key = traced_tenant.new_key("k-traced")
    response, request, steps = trace(collector, traced_tenant.http(key), "/v1/chat/completions?x=jane", body)
    assert response.status_code == 200, response.text
    assert (request.service, request.name) == ("loam-gateway", "POST /v1/chat/completions")
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["url.query"] == ""
    assert request.attributes["loam.tenant"] == traced_tenant.name
    assert request.attributes["loam.key_id"] == "k-traced"
    assert request.attributes["loam.cache"] == "miss"
    assert request.attributes["loam.request_id"] == response.headers["x-request-id"]
    call = named(steps, "chat haiku")
    assert {span.name: span.parent_id for span in steps} == {
        "admission": request.span_id,
        "hold": request.span_id,
        "chat haiku": request.span_id,
        "attempt": call.span_id,
        "settle": call.span_id,
    }
    assert not any(span.failed for span in [request, *steps])
    told = call.attributes
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "aws.bedrock"
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("haiku", HAIKU["modelId"])
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told.get("gen_ai.request.stream", False) is stream
    assert (told["loam.tenant"], told["loam.key_id"]) == (traced_tenant.name, "k-traced")
    assert told["cloud.region"] == named(steps, "attempt").attributes["cloud.region"] == "us-east-1"
    if not stream:
        usage = response.json()["usage"]
        assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
        assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
        assert told["loam.cost_usd"] == pytest.approx(float(usage["cost_usd"]))
    assert told["loam.cost_usd"] > 0


def test_each_attempt_is_a_span_and_a_failed_one_says_how(traced_tenant, collector, faults):
    faults({"contains": traced_tenant.name, "times": 1, "fault": {"error": "throttle"}})
    _, _, steps = trace(collector, traced_tenant.http(), "/v1/chat/completions", CHAT)
    attempts = [span for span in steps if span.name == "attempt"]
    assert [span.attributes["cloud.region"] for span in attempts] == ["us-east-1", "us-west-2"]
    assert [span.attributes.get("error.type") for span in attempts] == ["throttled", None]
    assert named(steps, "chat haiku").attributes["cloud.region"] == "us-west-2"


def test_an_answer_of_the_cache_is_a_trace_without_a_models_call(traced_tenant, collector):
    http, body = traced_tenant.http(), CHAT | {"messages": say(f"cached for {traced_tenant.name}")}
    eventually(lambda: ask(http, body).headers["x-loam-cache"] == "hit", "the answer was not kept")
    _, request, steps = trace(collector, http, "/v1/chat/completions", body)
    assert (request.attributes["loam.cache"], request.attributes["loam.cost_usd"]) == ("hit", "0")
    assert not {"chat haiku", "attempt"} & {span.name for span in steps}


def test_a_refusal_is_in_the_trace_at_the_step_that_refused(traced_tenant, collector):
    traced_tenant.put(budget={"monthlyUsd": "0"})
    response, _, steps = trace(collector, traced_tenant.http(), "/v1/chat/completions", CHAT)
    assert response.status_code == 402
    hold = named(steps, "hold")
    assert (hold.failed, hold.attributes["error.type"]) == (True, "budget_exceeded")
    assert "chat haiku" not in {span.name for span in steps}


def test_no_trace_carries_what_a_caller_wrote_or_a_secret(traced_tenant, collector, faults):
    key = traced_tenant.new_key()
    faults({"contains": traced_tenant.name, "times": 1, "fault": {"error": "400", "message": f"bad prompt: {PROMPT}"}})
    for body in (CHAT | {"messages": say(PROMPT)}, CHAT | {"messages": say(PROMPT)}, CHAT | {"what": PROMPT}):
        trace(collector, traced_tenant.http(key), "/v1/chat/completions", body)
    sent = b"".join(collector.bodies)
    for word in ("secret plan", "jane", "4111", key, traced_tenant.gateway.admin_token):
        assert word.encode() not in sent


class RetrievalService(BaseHTTPRequestHandler):
    """Answers every query with nothing, and keeps the headers that it was asked with."""

    asked: ClassVar[list[Mapping[str, str]]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(self.headers)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"matches": [], "usage": {"costUsd": "0"}}')

    def log_message(self, *_: object) -> None:
        pass


def test_a_trace_goes_on_into_the_services_that_a_call_needs(traced, traced_tenant, collector):
    with ThreadingHTTPServer(("127.0.0.1", 0), RetrievalService) as server:
        threading.Thread(target=server.serve_forever).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        pipeline = {"uid": "p", "spec": PIPELINE, "endpoint": endpoint}
        assert traced.put(f"/tenants/{traced_tenant.name}/pipelines/handbook", pipeline).is_success
        answer, request, _ = trace(collector, traced_tenant.http(), "/v1/pipelines/handbook/query", {"query": "why?"})
        server.shutdown()
    assert answer.status_code == 200, answer.text
    [headers] = RetrievalService.asked
    assert headers["traceparent"] == f"00-{request.trace_id}-{request.span_id}-01"


def test_logs_hold_no_prompt_no_secret_and_no_address_after_a_busy_day(folder, servers, gateway, faults):
    more = {"LOAM_LOG_LEVEL": "debug"}
    process = GatewayProcess(
        folder, Servers(servers.database_url, servers.redis_url, servers.s3_endpoint, servers.bedrock_url, more)
    ).start()
    try:
        provider_key, stranger = "sk-ant-REDACTED", new_api_key()
        tenant = process.new_tenant()
        key, http = tenant.new_key(), tenant.http()
        faults(
            {
                "contains": tenant.name,
                "times": 2,
                "skip": 3,
                "fault": {"error": "400", "message": f"bad prompt: {PROMPT}"},
            }
        )
        for body in (
            CHAT | {"messages": say(f"{PROMPT} {stranger} {provider_key}")},
            CHAT | {"messages": say(PROMPT), "stream": True},
            CHAT | {"messages": say(PROMPT), "user": "jane@example.com"},
            CHAT | {"messages": say(PROMPT), "unknown": PROMPT},
            CHAT | {"messages": say(PROMPT + "\x00")},
            CHAT | {"model": PROMPT, "messages": say(PROMPT)},
        ):
            for headers in ({}, {"idempotency-key": PROMPT[:30]}, {"authorization": f"Bearer {stranger}"}):
                http.post("/v1/chat/completions", json=body, headers=headers)
        http.post("/v1/embed", json={"input": PROMPT})
        http.post("/v1/auth/keys", json={"name": PROMPT, "scopes": ["ai:complete"], "user": "jane@example.com"})
        http.post("/v1/pipelines/none/query", json={"query": PROMPT})
        http.get(f"/v1/pipelines/none/documents?cursor={stranger}")
        tenant.close()
    finally:
        process.stop()
    log = process.log()
    assert '"level": "debug"' in log
    for word in ("secret plan", "jane@", "4111", key, stranger, "adminsecret", process.admin_token):
        assert word not in log, f"{word} is in the log"
    assert "loam_gate***" not in log


def test_health_names_what_is_away_and_no_address(folder, servers, gateway):
    [port] = embedded.free_ports(1)
    away = Servers(servers.database_url, f"redis://127.0.0.1:{port}/0", servers.s3_endpoint, servers.bedrock_url)
    process = GatewayProcess(folder, away).start()
    try:
        told = httpx.get(f"{process.public}/v1/health")
        assert told.json() == {
            "status": "degraded",
            "dependencies": {"postgres": "ok", "redis": "unavailable", "storage": "ok", "provider": "unknown"},
        }
    finally:
        process.stop()


def test_a_gateway_whose_database_is_away_lives_and_is_not_ready(folder, servers):
    [port] = embedded.free_ports(1)
    away = f"postgresql://loam:s3cret@127.0.0.1:{port}/loam"
    process = GatewayProcess(folder, Servers(away, servers.redis_url, servers.s3_endpoint, servers.bedrock_url))
    with process.popen() as started:
        try:
            live = f"{process.public}/v1/health?live=true"
            eventually(lambda: _status(live) == 200, "it did not come to life", 30)
            ready = httpx.get(f"{process.public}/v1/health")
            assert ready.status_code == 503
            assert "127.0.0.1" not in ready.text
            refused = httpx.get(f"{process.public}/v1/models", headers={"authorization": "Bearer loam_x"})
            assert "127.0.0.1" not in refused.text
        finally:
            started.terminate()


def _status(url):
    try:
        return httpx.get(url).status_code
    except httpx.HTTPError:
        return None


@dataclass
class Leaving:
    """A gateway that a test will stop."""

    gateway: GatewayProcess
    process: "subprocess.Popen[str]"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def status(self) -> int:
        """How it ended."""
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def leaving(folder, servers, gateway):
    with contextlib.ExitStack() as stack:

        def start(drain: str) -> Leaving:
            made = GatewayProcess(folder, servers)
            process = stack.enter_context(made.popen(LOAM_DRAIN_TIMEOUT=drain))
            stack.callback(process.kill)
            eventually(lambda: _status(f"{made.public}/v1/health") == 200, "it did not start", 30)
            return Leaving(made, process)

        yield start


class Reader:
    """Reads a stream on a thread of its own."""

    def __init__(self, http: httpx.Client) -> None:
        self.lines: list[str] = []
        self.ended = ""
        self._http = http
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        eventually(lambda: self.lines, "the stream did not begin")

    def _read(self) -> None:
        body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                self.lines.extend(line for line in response.iter_lines() if line)
            self.ended = "whole"
        except httpx.HTTPError as error:
            self.ended = type(error).__name__

    def wait(self) -> None:
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


def test_on_sigterm_streams_come_to_their_end_and_new_requests_are_sent_elsewhere(leaving, faults):
    left = leaving("20")
    tenant = left.gateway.new_tenant()
    http = tenant.http()
    faults({"contains": tenant.name, "fault": {"text": "word " * 20, "eventDelayMs": 100}})
    reader = Reader(tenant.http())
    left.stop()
    eventually(lambda: _status(f"{left.gateway.public}/v1/health") == 503, "it did not say that it drains")
    refused = http.post("/v1/chat/completions", json=CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert refused.headers["connection"] == "close"
    assert int(refused.headers["retry-after"]) > 0
    reader.wait()
    assert (reader.ended, reader.lines[-1]) == ("whole", "data: [DONE]")
    assert left.status() == 0
    tenant.close()


def test_a_stream_that_outlasts_the_drain_is_cut_and_settled(leaving, faults, query):
    left = leaving("0.5")
    tenant = left.gateway.new_tenant(budget={"monthlyUsd": "1"})
    faults({"contains": tenant.name, "fault": {"text": "word " * 200, "eventDelayMs": 200}})
    reader = Reader(tenant.http())
    begun = time.monotonic()
    left.stop()
    reader.wait()
    assert left.status() == 0
    assert time.monotonic() - begun < 15
    entries = query("SELECT kind, outcome, estimated, cost FROM entries WHERE tenant = $1", tenant.name)
    [entry] = entries
    assert (entry["kind"], entry["outcome"], entry["estimated"]) == ("stream", "cut", True)
    assert entry["cost"] > 0
    assert query("SELECT 1 FROM holds WHERE tenant = $1", tenant.name) == []
    tenant.close()


def test_changes_of_configuration_count_within_a_second_and_without_a_restart(gateway, tenant):
    name = f"m-{secrets.token_hex(4)}"
    route = HAIKU | {"uid": name}
    gateway.model(name, route)
    tenant.put(models=[name])
    secret = tenant.new_key("k-changing")
    http = tenant.http(secret)

    def ask(**more):
        # An answer of the cache costs nothing, and this is about the price.
        return http.post(
            "/v1/chat/completions", json=CHAT | {"model": name} | more, headers={"cache-control": "no-store"}
        )

    def soon(condition, what):
        eventually(condition, f"{what} did not count", 1)

    first = float(ask().headers["x-loam-cost-usd"])
    gateway.model(name, route | {"price": {"inputPerMillion": "2.5", "outputPerMillion": "12.5"}})
    soon(lambda: float(ask().headers["x-loam-cost-usd"]) == pytest.approx(10 * first), "the new price")
    tenant.put(models=[name], budget={"monthlyUsd": "0"})
    soon(lambda: ask().status_code == 402, "the new cap")
    tenant.put(models=["embedder"])
    soon(lambda: ask().status_code == 403, "the new allow-list")
    tenant.put(models=[name], rateLimit={"requestsPerMinute": 1})
    soon(lambda: [ask().status_code for _ in range(2)][-1] == 429, "the new rate limit")
    tenant.put(models=[name])
    soon(lambda: ask().status_code == 200, "lifting the limit")
    tenant.new_key("k-changing", scopes=("ai:embed",))
    soon(lambda: ask().status_code == 401, "the key's new secret")


def value_of(gateway, name, **labels):
    """One sample of a metric; 0 when there is none yet."""
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    for line in httpx.get(f"{gateway.admin}/metrics").text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.partition("{")[0] == name and all(label in sample for label in wanted):
            return float(value)
    return 0.0


def test_open_holds_and_streams_are_counted_while_they_are_open(gateway, tenant, faults):
    before = {name: value_of(gateway, name) for name in ("loam_holds_open", "loam_streams_open")}
    batches = value_of(gateway, "loam_ledger_batch_tickets_count")
    faults({"contains": tenant.name, "fault": {"text": "word " * 10, "eventDelayMs": 100}})
    reader = Reader(tenant.http())
    assert {name: value_of(gateway, name) - count for name, count in before.items()} == dict.fromkeys(before, 1.0)
    reader.wait()
    eventually(lambda: before == {name: value_of(gateway, name) for name in before}, "something stayed open")
    assert value_of(gateway, "loam_ledger_batch_tickets_count") >= batches + 2
    assert value_of(gateway, "loam_ledger_queue_tickets") == 0


def test_refusals_are_counted_by_reason(gateway, tenant):
    def refusals():
        return {
            reason: value_of(gateway, "loam_refusals_total", reason=reason) for reason in ("auth", "budget", "rate")
        }

    before, http = refusals(), tenant.http()
    http.post("/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer loam_x"})
    tenant.put(rateLimit={"requestsPerMinute": 1}, budget={"monthlyUsd": "0"})
    eventually(lambda: http.post("/v1/chat/completions", json=CHAT).status_code == 429, "no limit was reached")
    after = refusals()
    assert all(after[reason] > before[reason] for reason in before), (before, after)


def test_metrics_have_no_labels_that_callers_write(gateway, tenant):
    word = f"w{secrets.token_hex(8)}"
    http = tenant.http()
    http.get(f"/{word}")
    http.post("/v1/chat/completions", json=CHAT | {"model": word, "user": word})
    http.get(f"/v1/pipelines/{word}/documents/{word}")
    http.request(word.upper(), "/v1/models")
    assert word not in httpx.get(f"{gateway.admin}/metrics").text.lower()
