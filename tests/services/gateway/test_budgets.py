"""Budgets are hard, and every metered thing is one entry."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from urllib.parse import urlsplit

import openai
import pytest

from loam_shared.money import parse_usd

from ._platform import HAIKU, eventually, say

ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY posted_at"
HOLDS = "SELECT * FROM holds WHERE tenant = $1"
ACCOUNTS = "SELECT scope::text, period::text, cap, held, posted, overrun FROM accounts WHERE tenant = $1"
TENANT_MONTH = ("tenant", "month")


def month(query, tenant):
    (row,) = [row for row in query(ACCOUNTS, tenant.name) if (row["scope"], row["period"]) == TENANT_MONTH]
    return row


def test_a_hundred_requests_at_once_on_a_budget_for_ten_spend_at_most_the_cap(tenant, query):
    key = tenant.new_key()
    price = Decimal(
        tenant.client(key)
        .chat.completions.with_raw_response.create(model="haiku", messages=say("hello"), max_tokens=64)
        .headers["x-loam-cost-usd"]
    )
    # Ten holds fit at once: an input bound of some hundred bytes, and 64 tokens of output.
    tenant.put(budget={"monthlyUsd": str(price * 10)})

    async def ask(client):
        try:
            return await client.chat.completions.create(model="haiku", messages=say("hello"), max_tokens=64)
        except openai.APIStatusError as error:
            return error.status_code

    async def all_at_once():
        async with tenant.async_client(key) as client:
            return await asyncio.gather(*[ask(client) for _ in range(100)])

    outcomes = asyncio.run(all_at_once())
    refused = [outcome for outcome in outcomes if outcome == 402]
    served = [outcome for outcome in outcomes if not isinstance(outcome, int)]
    assert len(served) + len(refused) == 100
    assert served
    account, entries = month(query, tenant), query(ENTRIES, tenant.name)
    assert account["posted"] == sum(entry["cost"] for entry in entries) <= account["cap"]
    assert account["held"] == account["overrun"] == 0
    assert len(entries) == len(served) + 1


def test_a_refusal_says_which_cap_what_is_left_and_when_it_begins_anew(tenant):
    tenant.put(budget={"monthlyUsd": "5", "dailyUsd": "0.000001"})
    with pytest.raises(openai.APIStatusError) as caught:
        tenant.client().chat.completions.create(model="haiku", messages=say("hello"))
    assert caught.value.status_code == 402
    assert caught.value.body["code"] == "budget_exceeded"
    assert {"cap", "remainingUsd", "resetsAt"} <= caught.value.body.keys()
    assert caught.value.body["cap"] == "tenantDaily"


def test_a_tight_budget_shortens_the_answer_and_says_so(tenant):
    # Room for the input bound and for about a hundred tokens of output, not for 4096.
    tenant.put(budget={"monthlyUsd": "0.0003"})
    answer = tenant.client().chat.completions.with_raw_response.create(
        model="haiku", messages=say("hello"), max_tokens=4096
    )
    assert 64 <= int(answer.headers["x-loam-max-tokens"]) < 4096


def test_the_cost_in_the_header_the_body_and_the_ledger_is_the_same(tenant, query, bedrock):
    before = bedrock.billed(HAIKU["modelId"])
    answer = tenant.client().chat.completions.with_raw_response.create(model="haiku", messages=say("hello"))
    after = bedrock.billed(HAIKU["modelId"])
    (entry,) = query(ENTRIES, tenant.name)
    assert parse_usd(answer.headers["x-loam-cost-usd"]) == entry["cost"] > 0
    assert parse_usd(answer.parse().usage.model_dump()["cost_usd"]) == entry["cost"]
    assert entry["input_tokens"] == after["inputTokens"] - before.get("inputTokens", 0)
    assert entry["output_tokens"] == after["outputTokens"] - before.get("outputTokens", 0)
    assert not entry["estimated"]


@pytest.mark.parametrize("events", [1, 3, 6])
def test_a_stream_that_the_client_cuts_is_one_entry_however_early(tenant, query, faults, events):
    faults({"contains": tenant.name, "fault": {"eventDelayMs": 60}})
    stream = tenant.client().chat.completions.create(model="haiku", messages=say(f"hello {tenant.name}"), stream=True)
    for _, _chunk in zip(range(events), stream, strict=False):
        pass
    stream.close()
    eventually(lambda: query(ENTRIES, tenant.name), "the cut stream was not settled")
    (entry,) = query(ENTRIES, tenant.name)
    assert entry["estimated"]
    assert 0 < entry["cost"] <= entry["held"]
    account = month(query, tenant)
    assert (account["held"], account["posted"]) == (0, entry["cost"])


def test_a_client_that_hangs_up_before_the_first_event_leaves_one_entry(tenant, query, faults, gateway):
    faults({"contains": tenant.name, "fault": {"delayMs": 400}})
    body = json.dumps({"model": "haiku", "messages": say(f"hello {tenant.name}"), "stream": True})
    address = urlsplit(gateway.public)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant.new_key()}\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        eventually(lambda: query(HOLDS, tenant.name), "the call was not begun")
    eventually(lambda: query(ENTRIES, tenant.name), "the call was not settled")
    assert len(query(ENTRIES, tenant.name)) == 1
    assert month(query, tenant)["held"] == 0


def test_a_stream_posts_before_its_last_event(tenant, query):
    stream = tenant.client().chat.completions.create(
        model="haiku", messages=say("hello"), stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].finish_reason:
            (entry,) = query(ENTRIES, tenant.name)
    assert parse_usd(chunk.usage.model_dump()["cost_usd"]) == entry["cost"]


def test_a_stream_that_the_provider_cuts_ends_with_an_error_event_and_one_entry(tenant, query, faults):
    faults({"contains": tenant.name, "fault": {"cutAfter": 4}})
    received = []
    with pytest.raises(openai.APIError) as caught:
        received.extend(
            tenant.client().chat.completions.create(model="haiku", messages=say(f"hi {tenant.name}"), stream=True)
        )
    assert caught.value.body["code"] == "provider_error"
    (entry,) = query(ENTRIES, tenant.name)
    assert entry["estimated"]
    assert entry["cost"] > 0


def test_a_call_that_the_provider_refuses_costs_nothing(tenant, query, faults):
    faults({"contains": tenant.name, "fault": {"error": "500"}})
    with pytest.raises(openai.InternalServerError) as caught:
        tenant.client().chat.completions.create(model="haiku", messages=say(f"hi {tenant.name}"))
    assert caught.value.status_code == 502
    assert caught.value.body["providerRequestId"]
    assert month(query, tenant) | {"cap": None} == {
        "scope": "tenant", "period": "month", "cap": None, "held": 0, "posted": 0, "overrun": 0
    }  # fmt: skip


def test_the_same_idempotency_key_gives_the_same_answer_and_one_entry(tenant, query):
    client = tenant.client()
    first, second = (
        client.chat.completions.with_raw_response.create(
            model="haiku", messages=say("hello"), extra_headers={"Idempotency-Key": "one"}
        )
        for _ in range(2)
    )
    assert first.text == second.text
    assert second.headers["x-loam-replayed"] == "true"
    assert second.headers["x-loam-cost-usd"] == "0"
    assert len(query(ENTRIES, tenant.name)) == 1


def test_a_stream_with_an_idempotency_key_is_replayed_whole(tenant, query):
    client = tenant.client()
    heard = [
        [
            chunk.model_dump()
            for chunk in client.chat.completions.create(
                model="haiku", messages=say("hello"), stream=True, extra_headers={"Idempotency-Key": "two"}
            )
        ]
        for _ in range(2)
    ]
    assert heard[0] == heard[1]
    assert len(query(ENTRIES, tenant.name)) == 1


def test_the_same_idempotency_key_for_another_body_is_a_conflict(tenant):
    client = tenant.client()
    headers = {"Idempotency-Key": "three"}
    client.chat.completions.create(model="haiku", messages=say("hello"), extra_headers=headers)
    with pytest.raises(openai.ConflictError) as caught:
        client.chat.completions.create(model="haiku", messages=say("goodbye"), extra_headers=headers)
    assert caught.value.body["code"] == "idempotency_conflict"


def test_twins_with_one_idempotency_key_all_get_the_answer_that_was_charged_once(tenant, query, faults):
    faults({"contains": tenant.name, "fault": {"delayMs": 200}})
    key, together = tenant.new_key(), threading.Barrier(4)

    def ask(_):
        together.wait()
        return tenant.client(key).chat.completions.create(
            model="haiku", messages=say(f"hi {tenant.name}"), extra_headers={"Idempotency-Key": "four"}
        )

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(ask, range(4))
    assert others == [first] * 3
    assert len(query(ENTRIES, tenant.name)) == 1


def test_a_batch_of_embeddings_is_one_entry(tenant, query):
    answer = tenant.client().embeddings.create(model="embedder", input=[f"text {n}" for n in range(40)])
    assert [vector.index for vector in answer.data] == list(range(40))
    (entry,) = query(ENTRIES, tenant.name)
    assert entry["kind"] == "embedding"
    assert entry["input_tokens"] == answer.usage.prompt_tokens


def test_embeddings_that_fail_half_way_charge_what_was_billed(tenant, query, faults):
    faults({"contains": f"{tenant.name} 30", "fault": {"error": "400"}})
    texts = [f"{tenant.name} {n}" for n in range(40)]
    with pytest.raises(openai.BadRequestError):
        tenant.client().embeddings.create(model="embedder", input=texts)
    (entry,) = query(ENTRIES, tenant.name)
    assert entry["input_tokens"] > 0
    assert entry["outcome"] == "cut"


def test_a_key_and_a_user_have_caps_of_their_own(tenant):
    tenant.put(budget={"monthlyUsd": "5", "perUserMonthlyUsd": "0.000001"})
    with pytest.raises(openai.APIStatusError) as caught:
        tenant.client(tenant.new_key(user="ann")).chat.completions.create(model="haiku", messages=say("hello"))
    assert caught.value.body["cap"] == "userMonthly"
    with pytest.raises(openai.APIStatusError):
        tenant.client(tenant.new_key(monthlyUsd="0")).chat.completions.create(model="haiku", messages=say("hello"))
    assert tenant.client().chat.completions.create(model="haiku", messages=say("hello")).usage


def test_a_lowered_budget_shows_and_cannot_be_raised_above_the_manifest(tenant):
    tenant.put(budget={"monthlyUsd": "5"})
    http = tenant.http()
    lowered = http.put("/v1/usage/budget", json={"monthlyUsd": "1"}).json()["caps"]
    assert [cap["capUsd"] for cap in lowered if (cap["scope"], cap["period"]) == TENANT_MONTH] == ["1"]
    refused = http.put("/v1/usage/budget", json={"monthlyUsd": "50"})
    assert refused.status_code == 403
    assert "monthlyUsd" in refused.json()["error"]["message"]


def test_usage_adds_up_by_model_and_user(tenant):
    client = tenant.client(tenant.new_key(user="bob"))
    for _ in range(3):
        client.chat.completions.create(model="haiku", messages=say("hello"))
    client.embeddings.create(model="embedder", input="hello")
    rows = tenant.http().get("/v1/usage", params={"groupBy": "model,user"}).json()["rows"]
    assert {(row["model"], row["user"]): row["requests"] for row in rows} == {
        ("haiku", "bob"): 3,
        ("embedder", "bob"): 1,
    }
    (total,) = tenant.http().get("/v1/usage").json()["rows"]
    assert sum(parse_usd(row["costUsd"]) for row in rows) == parse_usd(total["costUsd"]) > 0


@pytest.mark.parametrize(
    ("query_string", "status"),
    [
        ("from=2026-01-01&to=2026-01-01", 200),
        ("from=2026-01-01T00:00:00%2B02:00", 200),
        ("to=2026-01-15", 200),
        ("groupBy=model,model", 200),
        ("from=2026-02-01&to=2026-01-01", 400),
        ("from=0001-01-01T00:00:00%2B14:00", 400),
        ("groupBy=shoe", 400),
    ],
)
def test_usage_says_what_it_summed_or_what_is_wrong_with_the_question(tenant, query_string, status):
    answer = tenant.http().get(f"/v1/usage?{query_string}")
    assert answer.status_code == status, answer.text
    if query_string.startswith("to"):
        assert answer.json()["from"] == "2026-01-01T00:00:00+00:00"


def test_a_tenant_with_a_bedrock_key_of_its_own_pays_nothing_here(tenant, query):
    own = [{"provider": "Bedrock", "secret": "bedrock-api-key-of-the-tenant"}]
    tenant.put(budget={"monthlyUsd": "0"}, providerCredentials=own)
    answer = tenant.client().chat.completions.with_raw_response.create(model="haiku", messages=say("hello"))
    assert answer.headers["x-loam-cost-usd"] == "0"
    (entry,) = query(ENTRIES, tenant.name)
    assert (entry["held"], entry["cost"]) == (0, 0)
    assert entry["output_tokens"] > 0
