"""Whatever is sent, the answer is one of the contract's: never a failure of ours, never somebody else's data."""

import json
import uuid

import httpx2 as httpx
import pytest

from ._platform import ALL_SCOPES, PIPELINE, say

BEYOND = "9" * 400
TOOL = '{"model": "haiku", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "tools": [%s]}'
FUNCTION = '{"type": "function", "function": {"name": "f", "parameters": %s}}'


def refused(response: httpx.Response) -> bool:
    """In the contract's shape, as the caller's own mistake."""
    error = response.json()["error"]
    return response.status_code in {400, 404} and set(error) >= {"type", "code", "message", "param", "requestId"}


@pytest.fixture
def send(tenant, gateway):
    """Sends bytes as they are, with a key that may do everything."""
    key = tenant.new_key(scopes=(*ALL_SCOPES, "rag:write"))

    def call(method: str, path: str, body: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        return httpx.request(method, gateway.public + path, content=body, headers=headers, timeout=30)

    return call


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", '{"model": "a\\u0000", "messages": [{"role": "user", "content": "hi"}]}'),
        ("/v1/complete", '{"model": "a\\u0000", "messages": [{"role": "user", "content": "hi"}]}'),
        ("/v1/embeddings", '{"model": "a\\u0000", "input": "x"}'),
        ("/v1/auth/keys", '{"name": "a\\u0000", "scopes": ["ai:complete"]}'),
        ("/v1/auth/keys", '{"name": "a", "scopes": ["ai:complete"], "user": "\\u0000"}'),
        ("/v1/pipelines/p%00/query", '{"query": "x"}'),
        ("/v1/pipelines/p%00/documents", '{"name": "x", "text": "x"}'),
        ("/v1/auth/keys/k%00/rotate", None),
    ],
)
def test_a_text_with_a_zero_byte_is_the_callers_mistake(send, path, body):
    assert refused(send("POST", path, body))


@pytest.mark.parametrize("path", ["/v1/auth/keys/k%00", "/v1/pipelines/p%00/documents/d"])
def test_a_zero_byte_in_a_path_is_no_other_object(send, path):
    assert refused(send("DELETE", path))


@pytest.mark.parametrize("schema", [f'{{"maximum": {BEYOND}}}', '{"a": ' * 190 + "[" * 100 + "]" * 100 + "}" * 190])
def test_a_schema_that_cannot_be_passed_on_is_refused(send, schema):
    assert refused(send("POST", "/v1/chat/completions", TOOL % (FUNCTION % schema)))
    described = f'{{"type": "json_schema", "json_schema": {{"name": "a", "schema": {schema}}}}}'
    body = f'{{"model": "haiku", "messages": [{{"role": "user", "content": "hi"}}], "response_format": {described}}}'
    assert refused(send("POST", "/v1/chat/completions", body))


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_moments_at_the_ends_of_time_are_refused(send, moment):
    assert refused(send("POST", "/v1/auth/keys", f'{{"name":"a","scopes":["ai:embed"],"expiresAt":"{moment}"}}'))
    assert refused(send("GET", f"/v1/usage?from={moment.replace('+', '%2B')}"))


@pytest.mark.parametrize("amount", ["1e999999", "1e999999999999999999", "-1", "NaN"])
def test_an_absurd_budget_is_refused(send, amount):
    assert refused(send("POST", "/v1/auth/keys", f'{{"name":"a","scopes":["ai:embed"],"monthlyBudget":"{amount}"}}'))
    assert refused(send("PUT", "/v1/usage/budget", f'{{"monthlyUsd":"{amount}"}}'))


@pytest.mark.parametrize("user", ["*", "a b", "a\\nb", ""])
def test_a_key_is_made_only_for_a_user_that_a_manifest_could_name(send, user):
    assert refused(send("POST", "/v1/auth/keys", f'{{"name":"a","scopes":["ai:embed"],"user":"{user}"}}'))


@pytest.mark.parametrize("limit", [2**62, 10**30])
def test_asking_for_more_output_than_can_be_paid_harms_nobody_else(tenant, gateway, send, limit):
    name = f"endless-{uuid.uuid4().hex[:6]}"
    price = {"inputPerMillion": "1", "outputPerMillion": "1"}
    model = {"uid": name, "provider": "Bedrock", "modelId": "anthropic.claude-3-haiku-20240307-v1:0"}
    gateway.model(name, model | {"capabilities": ["Chat"], "price": price})
    tenant.put(models=["haiku", name])
    body = f'{{"model":"{name}","messages":[{{"role":"user","content":"hi"}}],"max_tokens":{limit}}}'
    assert refused(send("POST", "/v1/chat/completions", body))
    assert gateway.new_tenant().client().chat.completions.create(model="haiku", messages=say("hi")).choices


@pytest.mark.parametrize("name", ["*", "ac*", "t?", "A", "a b", "a%00", "-a", "a" * 64, "a%0A"])
def test_no_tenant_or_pipeline_is_named_as_a_pattern(gateway, tenant, name):
    assert refused(gateway.put(f"/tenants/{name.replace('?', '%3F')}", {"uid": "1"}))
    body = {"uid": "1", "spec": PIPELINE, "endpoint": "http://127.0.0.1:1"}
    assert refused(gateway.put(f"/tenants/{tenant.name}/pipelines/{name.replace('?', '%3F')}", body))


def test_a_template_and_more_messages_than_are_taken_are_the_callers_mistake(send):
    body = {"template": "summarize", "variables": {"text": "x"}, "messages": say("x") * 10_000}
    assert refused(send("POST", "/v1/complete", json.dumps(body)))


@pytest.mark.parametrize("field", ["seed", "max_tokens", "max_completion_tokens"])
def test_a_number_beyond_64_bits_is_the_callers_mistake(send, field):
    body = {"model": "haiku", "messages": say("hi"), field: 10**30}
    assert refused(send("POST", "/v1/chat/completions", json.dumps(body)))
