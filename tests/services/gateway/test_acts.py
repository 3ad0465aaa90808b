"""Who may change which key, what that does to others, and what the audit log says about it."""

import collections
import itertools
import json
from uuid import uuid4

import openai
import pytest

from ._platform import PIPELINE, eventually, say

MAKER = ("keys:write", "ai:complete", "usage:read")
ACTS = "SELECT actor, action, subject, details, before, after FROM audit_log WHERE tenant = $1 ORDER BY id"


def make(http, **settings):
    """A key made over the API: its secret and its id."""
    response = http.post("/v1/auth/keys", json={"name": "made", "scopes": list(MAKER)} | settings)
    assert response.status_code == 201, response.text
    return response.json()["apiKey"], response.json()["keyId"]


def ask(tenant, secret):
    """A completion that no cache can know."""
    answer = tenant.client(secret).chat.completions.create(model="haiku", messages=say(str(uuid4())), max_tokens=16)
    assert answer.usage


def code(response):
    return response.status_code, response.json()["error"]["code"]


def is_refused(tenant, secret):
    try:
        tenant.client(secret).models.list()
    except openai.AuthenticationError:
        return True
    return False


def acts(query, tenant, action):
    """The audit log's lines of one action."""
    found = [act for act in query(ACTS, tenant.name) if act["action"] == action]
    return [act | {name: json.loads(act[name] or "null") for name in ("details", "before", "after")} for act in found]


def test_what_keys_spend_counts_under_the_caps_of_the_key_they_were_made_with(tenant):
    maker = tenant.http(tenant.new_key("maker", MAKER, monthlyUsd="0.0005"))
    one, other = make(maker)[0], make(maker)[0]
    grandchild, _ = make(tenant.http(one))
    for secret in (one, other, grandchild):
        ask(tenant, secret)
    with pytest.raises(openai.APIStatusError) as refusal:
        collections.deque((ask(tenant, secret) for secret in itertools.cycle((one, other, grandchild))), maxlen=0)
    assert refusal.value.status_code == 402
    assert "budget of the key maker" in refusal.value.message
    caps = maker.get("/v1/usage/budget").json()["caps"]
    (own,) = [cap for cap in caps if (cap["scope"], cap["period"]) == ("key", "month")]
    assert 0 < float(own["postedUsd"]) <= 0.0005


def test_a_key_can_be_capped_by_the_day(tenant):
    http = tenant.http()
    secret, key_id = make(http, dailyBudget="0")
    with pytest.raises(openai.APIStatusError) as refusal:
        ask(tenant, secret)
    assert refusal.value.body["cap"] == "keyDaily"
    (shown,) = [key for key in http.get("/v1/auth/keys").json()["keys"] if key["keyId"] == key_id]
    assert shown["dailyBudget"] == "0"
    capped = tenant.http(secret)
    assert code(capped.post("/v1/auth/keys", json={"name": "x", "scopes": ["keys:write"], "dailyBudget": "1"})) == (
        403,
        "forbidden",
    )


def test_users_can_be_capped_by_the_day_with_caps_of_the_tenants_own(tenant):
    http = tenant.http()
    assert http.put("/v1/usage/budget", json={"perUserDailyUsd": "0"}).status_code == 200
    with pytest.raises(openai.APIStatusError) as refusal:
        ask(tenant, tenant.new_key(user="ann"))
    assert refusal.value.body["cap"] == "userDaily"
    ask(tenant, tenant.new_key())


def test_a_key_changes_only_keys_that_were_made_with_it(tenant):
    one, other = tenant.http(tenant.new_key(scopes=MAKER)), tenant.http(tenant.new_key(scopes=MAKER))
    child, child_id = make(one)
    _, grandchild_id = make(tenant.http(child))
    for path in (f"/v1/auth/keys/{child_id}", f"/v1/auth/keys/{grandchild_id}"):
        assert code(other.delete(path)) == (403, "forbidden")
        assert code(other.post(f"{path}/rotate")) == (403, "forbidden")
        assert one.post(f"{path}/rotate").status_code == 200
    (shown,) = [key for key in one.get("/v1/auth/keys").json()["keys"] if key["keyId"] == grandchild_id]
    assert shown["madeBy"] == child_id
    assert one.delete(f"/v1/auth/keys/{grandchild_id}").status_code == 204


def test_revoking_a_key_revokes_all_that_was_made_with_it_and_nothing_else(tenant, query):
    http = tenant.http(tenant.new_key("root", MAKER))
    leaked, leaked_id = make(http)
    minted, _ = make(tenant.http(leaked))
    innocent, _ = make(http)
    assert http.delete(f"/v1/auth/keys/{leaked_id}").status_code == 204
    eventually(lambda: is_refused(tenant, leaked) and is_refused(tenant, minted), "the keys were refused", 2)
    assert not is_refused(tenant, innocent)
    revoked = acts(query, tenant, "key.revoke")
    assert [(act["actor"], act["after"]) for act in revoked] == [("key root", None)] * 2
    assert {act["before"]["made_by"] for act in revoked} == {"root", leaked_id}


def test_keys_can_be_made_by_keys_only_so_deep(tenant):
    secret = tenant.new_key(scopes=MAKER)
    for _ in range(4):
        secret, _ = make(tenant.http(secret))
    refusal = tenant.http(secret).post("/v1/auth/keys", json={"name": "x", "scopes": ["ai:complete"]})
    assert code(refusal) == (403, "forbidden")
    ask(tenant, secret)


def test_a_tenant_that_follows_another_of_its_name_begins_with_nothing_spent(tenant, gateway, query):
    tenant.put(budget={"monthlyUsd": "0.0005"})
    key = tenant.new_key(scopes=("ai:complete", "usage:read", "budget:write"))
    ask(tenant, key)
    assert tenant.http(key).put("/v1/usage/budget", json={"monthlyUsd": "0"}).status_code == 200
    with pytest.raises(openai.APIStatusError):
        ask(tenant, key)
    gateway.delete(f"/tenants/{tenant.name}?uid={tenant.uid}&policy=Delete").raise_for_status()

    tenant.uid = "next"
    tenant.put(budget={"monthlyUsd": "0.0005"})
    http = tenant.http(key := tenant.new_key(scopes=("ai:complete", "usage:read")))
    month = http.get("/v1/usage/budget").json()["caps"][0]
    assert (month["capUsd"], month["postedUsd"]) == ("0.0005", "0")
    assert http.get("/v1/usage").json()["rows"][0]["requests"] == 0
    ask(tenant, key)
    assert http.get("/v1/usage").json()["rows"][0]["requests"] == 1
    assert float(gateway.get(f"/tenants/{tenant.name}").json()["spend"]["monthUsd"]) < 0.0001
    assert len(query("SELECT 1 FROM entries WHERE tenant = $1", tenant.name)) == 2


def test_a_tenant_that_adopts_what_another_left_takes_over_what_that_spent(tenant, gateway):
    ask(tenant, tenant.new_key())
    spent = gateway.get(f"/tenants/{tenant.name}").json()["spend"]["monthUsd"]
    gateway.delete(f"/tenants/{tenant.name}?uid={tenant.uid}&policy=Retain").raise_for_status()
    tenant.uid = "next"
    tenant.put(adopt=True)
    assert gateway.get(f"/tenants/{tenant.name}").json()["spend"]["monthUsd"] == spent != "0"


def test_the_audit_log_says_who_changed_what_from_what_to_what(tenant, query):
    tenant.put(budget={"monthlyUsd": "5"})
    tenant.put(budget={"monthlyUsd": "6"})
    tenant.new_key("ci", MAKER, monthlyUsd="1")
    secret, key_id = make(tenant.http(tenant.new_key("maker", MAKER)))
    tenant.http(secret).post(f"/v1/auth/keys/{key_id}/rotate").raise_for_status()

    puts = acts(query, tenant, "tenant.put")
    assert [(act["before"] or {}).get("budget", {}).get("monthlyUsd") for act in puts] == [None, None, "5"]
    assert [act["after"]["budget"].get("monthlyUsd") for act in puts] == [None, "5", "6"]
    assert {act["actor"] for act in puts} == {"operator"}
    caps = acts(query, tenant, "budget.set")
    assert [(act["before"], act["after"]) for act in caps if act["subject"] == "tenant/"] == [
        (None, {"nanos": 5 * 10**9}),
        ({"nanos": 5 * 10**9}, {"nanos": 6 * 10**9}),
    ]
    (rotated,) = acts(query, tenant, "key.rotate")
    assert (rotated["actor"], rotated["subject"]) == (f"key {key_id}", key_id)
    assert len(rotated["after"]["secrets"]) == len(rotated["before"]["secrets"]) + 1
    assert all(act["details"]["requestId"] for act in puts)
    assert secret not in str(query(ACTS, tenant.name))


def test_a_change_that_is_refused_leaves_no_line(tenant, gateway, query):
    before = query(ACTS, tenant.name)
    assert gateway.put(f"/tenants/{tenant.name}", {"uid": "another"}).status_code == 409
    assert query(ACTS, tenant.name) == before


def test_pipelines_are_in_the_audit_log_when_they_change_and_when_they_go(tenant, gateway, query):
    spec = PIPELINE
    desired = {"uid": "u", "spec": spec, "endpoint": "http://127.0.0.1:1"}
    path = f"/tenants/{tenant.name}/pipelines/handbook"
    for change in ({}, {}, {"retrieval": {"topK": 3}}):
        gateway.put(path, desired | {"spec": spec | change}).raise_for_status()
    for _ in range(2):
        gateway.delete(f"{path}?uid=u").raise_for_status()
    last = spec | {"retrieval": {"topK": 3}}
    assert [(act["before"], act["after"]) for act in acts(query, tenant, "pipeline.put")] == [
        (None, spec),
        (spec, last),
    ]
    assert [(act["before"], act["after"]) for act in acts(query, tenant, "pipeline.delete")] == [(last, None)]
