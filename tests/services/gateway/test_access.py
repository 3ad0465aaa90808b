"""Who may do what: each listener takes only its own credentials, and the tenant comes from nothing else."""

import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import httpx2 as httpx
import openai
import pytest

from loam_shared.credentials import Caller, hash_api_key, new_api_key, new_signing_key, sign_caller

from ._platform import HAIKU, GatewayProcess, say

CHAT = {"model": "haiku", "messages": say("hello")}


def token(gateway, tenant, key_id="k", *, key=None, service="retrieval", lifetime=60.0, **more):
    caller = Caller(tenant=tenant.name, key_id=key_id, request_id="root-1", **more)
    return sign_caller(caller, service=service, lifetime_seconds=lifetime, key=key or gateway.signing_key)


def code(response):
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer loam_wrong", "Basic YTpi", "loam_wrong"])
def test_without_a_good_key_nothing_is_answered(gateway, header):
    headers = {} if header is None else {"authorization": header}
    response = httpx.post(f"{gateway.public}/v1/chat/completions", json=CHAT, headers=headers)
    assert code(response) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["requestId"] == response.headers["x-request-id"]


def test_the_sdk_raises_its_own_classes(tenant, gateway):
    with pytest.raises(openai.AuthenticationError):
        tenant.client("loam_wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        tenant.client().chat.completions.create(model="nothing", messages=say("hello"))
    with pytest.raises(openai.PermissionDeniedError) as caught:
        tenant.client(tenant.new_key(scopes=("ai:embed",))).chat.completions.create(**CHAT)
    assert "ai:complete" in caught.value.body["message"]


def test_a_model_that_the_tenant_may_not_use_is_forbidden(tenant):
    tenant.put(models=["embedder"])
    with pytest.raises(openai.PermissionDeniedError):
        tenant.client().chat.completions.create(**CHAT)
    assert [model.id for model in tenant.client().models.list()] == ["embedder"]


def test_a_model_without_a_price_is_refused(tenant, gateway):
    name = f"free-{uuid.uuid4().hex[:6]}"
    gateway.model(name, HAIKU | {"uid": name, "price": None})
    tenant.put(models=[name])
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        tenant.client().chat.completions.create(model=name, messages=say("hello"))
    assert caught.value.body["code"] == "model_not_priced"


def test_a_revoked_key_is_refused_within_a_second(tenant, gateway):
    key = tenant.new_key("doomed")
    client = tenant.client(key)
    client.models.list()
    assert gateway.delete(f"/tenants/{tenant.name}/keys/doomed").status_code == 204
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            client.models.list()
        except openai.AuthenticationError:
            return
    pytest.fail("the key still works")


def test_a_revoked_key_is_refused_within_a_second_when_nobody_was_told(tenant, query):
    client = tenant.client(tenant.new_key("quiet"))
    client.models.list()
    query("UPDATE api_keys SET revoked_at = now() WHERE tenant = $1 AND key_id = 'quiet'", tenant.name)
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**CHAT)
    time.sleep(1)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_another_gateway_refuses_a_revoked_key_within_a_second(tenant, gateway, folder, servers):
    other = GatewayProcess(folder, servers)
    other.environment = gateway.environment | {
        name: value for name, value in other.environment.items() if name.endswith("_PORT")
    }
    other.start()
    try:
        key = tenant.new_key("shared")
        http = tenant.http(key, other.public)
        assert http.get("/v1/models").status_code == 200
        gateway.delete(f"/tenants/{tenant.name}/keys/shared")
        time.sleep(0.95)
        assert http.get("/v1/models").status_code == 401
    finally:
        other.stop()


def test_an_expired_key_is_refused(tenant):
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    with pytest.raises(openai.AuthenticationError):
        tenant.client(tenant.new_key(expiresAt=past)).models.list()


def test_two_secrets_of_a_key_overlap_and_the_older_one_ends(tenant, gateway):
    old, new = new_api_key(), new_api_key()
    until = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    hashes = [{"sha256": hash_api_key(new)}, {"sha256": hash_api_key(old), "expiresAt": until}]
    gateway.put(f"/tenants/{tenant.name}/keys/rolling", {"name": "rolling", "hashes": hashes})
    assert tenant.client(old).models.list()
    assert tenant.client(new).models.list()
    time.sleep(2.5)
    assert tenant.client(new).models.list()
    with pytest.raises(openai.AuthenticationError):
        tenant.client(old).models.list()


def test_a_suspended_tenant_is_forbidden_and_comes_back(tenant):
    client = tenant.client()
    tenant.put(suspended=True)
    with pytest.raises(openai.PermissionDeniedError, match="suspended"):
        client.chat.completions.create(**CHAT)
    tenant.put()
    assert client.chat.completions.create(**CHAT).usage


def test_each_listener_refuses_the_credentials_of_the_others(tenant, gateway):
    workload = tenant.new_key(workload="handbook")
    caller, api_key = token(gateway, tenant), tenant.new_key()
    urls = {
        "public": (gateway.public, "/v1/chat/completions", "POST"),
        "internal": (gateway.internal, "/internal/v1/chat/completions", "POST"),
        "admin": (gateway.admin, "/admin/v1/states", "GET"),
    }
    refused = {
        "public": [workload, caller, gateway.admin_token],
        "internal": [api_key, gateway.admin_token],
        "admin": [api_key, workload, caller],
    }
    for listener, credentials in refused.items():
        base, path, method = urls[listener]
        for credential in credentials:
            headers = {"authorization": f"Bearer {credential}"}
            response = httpx.request(method, base + path, headers=headers, json=CHAT if method == "POST" else None)
            assert response.status_code == 401, (listener, response.text)


def test_no_listener_has_the_routes_of_another(tenant, gateway):
    http = tenant.http()
    assert http.get("/admin/v1/states").status_code == 404
    assert http.get("/internal/v1/jwks").status_code == 404
    assert httpx.get(f"{gateway.internal}/v1/models").status_code == 404
    assert httpx.get(f"{gateway.admin}/v1/models").status_code == 404


def test_a_caller_token_charges_the_caller(tenant, gateway, query):
    tenant.new_key("k")
    headers = {"authorization": f"Bearer {token(gateway, tenant, user='ann', pipeline='handbook')}"}
    response = httpx.post(f"{gateway.internal}/internal/v1/chat/completions", json=CHAT, headers=headers)
    assert response.status_code == 200, response.text
    (entry,) = query("SELECT * FROM entries WHERE tenant = $1", tenant.name)
    assert (entry["key_id"], entry["user_id"], entry["pipeline"]) == ("k", "ann", "handbook")
    assert entry["root_request_id"] == "root-1"


def test_a_stream_on_the_internal_listener_always_tells_its_cost(tenant, gateway):
    tenant.new_key("k")
    headers = {"authorization": f"Bearer {token(gateway, tenant)}"}
    answer = httpx.post(
        f"{gateway.internal}/internal/v1/chat/completions", json=CHAT | {"stream": True}, headers=headers
    )
    frames = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    assert float(json.loads(frames[-2])["usage"]["cost_usd"]) > 0


@pytest.mark.parametrize("flaw", ["forged", "expired"])
def test_a_caller_token_that_is_no_good_is_refused(tenant, gateway, flaw):
    tenant.new_key("k")
    key = new_signing_key() if flaw == "forged" else None
    bad = token(gateway, tenant, key=key, lifetime=-10.0 if flaw == "expired" else 60.0)
    headers = {"authorization": f"Bearer {bad}"}
    assert code(httpx.post(f"{gateway.internal}/internal/v1/embeddings", json={}, headers=headers)) == (
        401,
        "invalid_api_key",
    )


def test_a_token_of_a_revoked_key_can_spend_nothing(tenant, gateway):
    headers = {"authorization": f"Bearer {token(gateway, tenant, 'gone')}"}
    response = httpx.post(f"{gateway.internal}/internal/v1/chat/completions", json=CHAT, headers=headers)
    assert response.status_code == 401


def test_the_public_half_of_the_signing_key_is_published(gateway):
    (key,) = httpx.get(f"{gateway.internal}/internal/v1/jwks").json()["keys"]
    assert key["kid"] == gateway.signing_key.kid
    assert "d" not in key


def test_a_made_key_works_and_is_shown_once(tenant):
    http = tenant.http()
    made = http.post("/v1/auth/keys", json={"name": "ci", "scopes": ["ai:complete"], "monthlyBudget": "1"})
    assert made.status_code == 201
    assert tenant.client(made.json()["apiKey"]).chat.completions.create(**CHAT).usage
    listed = http.get("/v1/auth/keys")
    assert made.json()["apiKey"] not in listed.text
    (key,) = [key for key in listed.json()["keys"] if key["keyId"] == made.json()["keyId"]]
    assert (key["scopes"], key["monthlyBudget"]) == (["ai:complete"], "1")


def test_a_made_key_has_at_most_what_its_maker_has(tenant):
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    http = tenant.http(tenant.new_key(scopes=("keys:write", "ai:embed"), monthlyUsd="1", user="ann", expiresAt=future))
    body = {"name": "x", "scopes": ["ai:embed"]}
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    excesses = [{"scopes": ["ai:complete"]}, {"monthlyBudget": "2"}, {"user": "bob"}, {"expiresAt": later}]
    for excess in excesses:
        assert http.post("/v1/auth/keys", json=body | excess).status_code == 403, excess
    made = http.post("/v1/auth/keys", json=body)
    (key,) = [key for key in http.get("/v1/auth/keys").json()["keys"] if key["keyId"] == made.json()["keyId"]]
    assert (key["monthlyBudget"], key["user"]) == ("1", "ann")
    assert datetime.fromisoformat(key["expiresAt"]) == datetime.fromisoformat(future)


def test_a_scope_or_amount_that_is_none_is_refused_with_a_sentence(tenant):
    http = tenant.http()
    for flaw in ({"scopes": ["ai:fly"]}, {"monthlyBudget": "-5"}, {"scopes": []}, {"unknown": 1}):
        response = http.post("/v1/auth/keys", json={"name": "x", "scopes": ["ai:embed"]} | flaw)
        assert code(response) == (400, "invalid_request"), flaw
        assert next(iter(flaw)) in response.json()["error"]["message"] or response.json()["error"]["param"] in flaw


def test_the_same_idempotency_key_makes_one_key(tenant):
    http = tenant.http()
    body, headers = {"name": "once", "scopes": ["ai:embed"]}, {"idempotency-key": "k1"}
    first, second = (http.post("/v1/auth/keys", json=body, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert len([key for key in http.get("/v1/auth/keys").json()["keys"] if key["name"] == "once"]) == 1
    other = http.post("/v1/auth/keys", json=body | {"name": "twice"}, headers=headers)
    assert code(other) == (409, "idempotency_conflict")


def test_a_rotated_key_has_two_secrets_for_the_overlap(tenant):
    http = tenant.http()
    made = http.post("/v1/auth/keys", json={"name": "r", "scopes": ["ai:embed"]}).json()
    path = f"/v1/auth/keys/{made['keyId']}/rotate"
    second = http.post(path).json()["apiKey"]
    assert tenant.client(made["apiKey"]).models.list()
    third = http.post(path, params={"overlapHours": 0}).json()["apiKey"]
    assert tenant.client(third).models.list()
    time.sleep(1)
    for old in (made["apiKey"], second):
        with pytest.raises(openai.AuthenticationError):
            tenant.client(old).models.list()


def test_a_key_cannot_rotate_one_that_may_do_more(tenant):
    strong = tenant.http().post("/v1/auth/keys", json={"name": "s", "scopes": ["ai:complete"]}).json()
    weak = tenant.http(tenant.new_key(scopes=("keys:write",)))
    assert weak.post(f"/v1/auth/keys/{strong['keyId']}/rotate").status_code == 403


def test_a_key_of_a_manifest_is_left_to_its_manifest(tenant):
    tenant.new_key("backend")
    http = tenant.http()
    assert code(http.delete("/v1/auth/keys/backend")) == (409, "conflict")


def test_keys_of_another_tenant_do_not_exist(tenant, gateway):
    stranger = gateway.new_tenant()
    made = tenant.http().post("/v1/auth/keys", json={"name": "x", "scopes": ["ai:embed"]}).json()
    http = stranger.http()
    assert code(http.delete(f"/v1/auth/keys/{made['keyId']}")) == (404, "not_found")
    assert code(http.post(f"/v1/auth/keys/{made['keyId']}/rotate")) == (404, "not_found")
    assert made["keyId"] not in http.get("/v1/auth/keys").text
    stranger.close()


def test_usage_of_another_tenant_is_not_counted(tenant, gateway):
    stranger = gateway.new_tenant()
    tenant.client().chat.completions.create(**CHAT)
    assert stranger.http().get("/v1/usage").json()["rows"][0]["requests"] == 0
    stranger.close()


def test_a_hash_is_never_taken_over_by_another_tenant(tenant, gateway):
    stranger, key = gateway.new_tenant(), tenant.new_key("mine")
    body = {"name": "theirs", "hashes": [{"sha256": hash_api_key(key)}]}
    assert gateway.put(f"/tenants/{stranger.name}/keys/theirs", body).status_code == 409
    assert gateway.get(f"/tenants/{stranger.name}").status_code == 200
    assert tenant.client(key).models.list()


def test_a_tenant_is_never_taken_over_by_another_uid(tenant, gateway):
    response = gateway.put(f"/tenants/{tenant.name}", {"uid": "another"})
    assert code(response) == (409, "conflict")


def test_an_unchanged_put_leaves_no_line_in_the_audit_log(tenant, query):
    count = "SELECT count(*) AS lines FROM audit_log WHERE tenant = $1"
    tenant.put(budget={"monthlyUsd": "5"}, providerCredentials=[{"provider": "Anthropic", "secret": "sk-1"}])
    before = query(count, tenant.name)
    tenant.put(budget={"monthlyUsd": "5"}, providerCredentials=[{"provider": "Anthropic", "secret": "sk-1"}])
    assert query(count, tenant.name) == before
    tenant.put(budget={"monthlyUsd": "6"})
    assert query(count, tenant.name) != before


def test_provider_credentials_lie_nowhere_in_the_clear(tenant, gateway, query):
    secret = f"sk-{uuid.uuid4().hex}"
    tenant.put(providerCredentials=[{"provider": "Anthropic", "secret": secret}])
    gateway.model(f"m-{tenant.name}", HAIKU | {"uid": "m", "provider": "Anthropic", "credential": secret})
    for table in ("tenants", "models", "audit_log"):
        assert not query(f"SELECT 1 FROM {table} AS t WHERE t::text LIKE '%' || $1 || '%'", secret)
    assert secret not in gateway.log()
    assert secret not in gateway.get(f"/tenants/{tenant.name}").text


def test_an_ended_tenant_is_refused_at_once_and_its_name_is_free_again(tenant, gateway):
    client = tenant.client()
    answer = gateway.delete(f"/tenants/{tenant.name}?uid={tenant.uid}&policy=Delete")
    assert answer.json() == {"done": True}
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    assert gateway.put(f"/tenants/{tenant.name}", {"uid": "next", "models": ["haiku"]}).status_code == 200
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_budget_below_zero_is_refused_with_a_sentence_and_changes_nothing(tenant, gateway):
    tenant.put(budget={"monthlyUsd": "7"})
    response = gateway.put(f"/tenants/{tenant.name}", {"uid": tenant.uid, "budget": {"monthlyUsd": "-5"}})
    assert code(response) == (400, "invalid_request")
    assert "budget.monthlyUsd" in response.json()["error"]["message"]
    caps = tenant.http().get("/v1/usage/budget").json()["caps"]
    assert next(cap["capUsd"] for cap in caps) == "7"


def test_a_tenant_hears_which_of_its_models_do_not_exist(tenant):
    assert tenant.put(models=["haiku", "ghost"])["unknownModels"] == ["ghost"]


def test_a_body_that_is_too_large_is_refused(tenant):
    response = tenant.http().post("/v1/chat/completions", content=b" " * (11 * 2**20))
    assert code(response) == (413, "too_large")


def test_the_request_id_of_the_caller_comes_back(tenant):
    http = tenant.http()
    assert http.get("/v1/models", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert http.get("/v1/models", headers={"x-request-id": "not fit"}).headers["x-request-id"] != "not fit"
