"""Loam's own plain routes."""

from loam_shared.money import parse_usd

ASK = {"messages": [{"role": "user", "content": "hello"}]}


def test_a_completion_without_a_model_is_answered_by_the_cheapest(tenant):
    answer = tenant.http().post("/v1/complete", json=ASK)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["content"]
    assert (body["model"], body["cached"]) == ("haiku", False)
    assert body["usage"]["costUsd"] == answer.headers["x-loam-cost-usd"]


def test_a_stream_is_tokens_then_usage_then_done(tenant):
    http, events = tenant.http(), []
    with http.stream("POST", "/v1/stream", json=ASK, headers={"idempotency-key": "s"}) as answer:
        events = [line[7:] for line in answer.iter_lines() if line.startswith("event: ")]
    assert events[0] == "token"
    assert events[-2:] == ["usage", "done"]
    assert set(events[:-2]) == {"token"}
    again = http.post("/v1/stream", json=ASK, headers={"idempotency-key": "s"})
    assert [line[7:] for line in again.text.splitlines() if line.startswith("event: ")] == events


def test_texts_are_embedded_by_the_cheapest_embedder(tenant):
    body = tenant.http().post("/v1/embed", json={"input": ["a", "b"]}).json()
    assert [len(vector) for vector in body["embeddings"]] == [256, 256]
    assert parse_usd(body["usage"]["costUsd"]) > 0


def test_what_the_routes_do_not_know_is_named(tenant):
    answer = tenant.http().post("/v1/complete", json=ASK | {"modle": "haiku"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "modle")


def test_a_tenant_without_such_a_model_hears_it(tenant):
    tenant.put(models=["embedder"])
    answer = tenant.http().post("/v1/complete", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
