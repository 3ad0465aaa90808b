"""Budget alerts of real gateways: from what a call cost to the message, through kills, and without showing secrets."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ..alerts._receivers import Mailbox, Webhook, mailbox, webhook
from ._platform import HAIKU, GatewayProcess, Servers, TestTenant, eventually, say

OPS = "ops@acme.example"
DELIVERIES = """
SELECT d.*, a.percent FROM alert_deliveries d JOIN budget_alerts a ON a.id = d.alert WHERE a.tenant = $1
"""


@pytest.fixture(scope="module")
def hook() -> Iterator[Webhook]:
    with webhook() as made:
        yield made


@pytest.fixture(scope="module")
def mails() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest.fixture(scope="module")
def alerting(folder: Path, servers: Servers, database_url: str, mails: Mailbox) -> Iterator[GatewayProcess]:
    """A gateway with a database of its own, for those that share it share the work of sending, too."""
    more = {
        "LOAM_SMTP_URL": mails.url,
        "LOAM_ALERTS_FROM": "loam@platform.example",
        "LOAM_ALERTS_LOOK_SECONDS": "0.1",
        "LOAM_ALERTS_SEND_TIMEOUT": "1.5",
        "LOAM_ALERTS_RETRY_SECONDS": "0.2",
    }
    own = Servers(database_url, servers.redis_url, servers.s3_endpoint, servers.bedrock_url, more)
    process = GatewayProcess(folder, own).start()
    process.model("haiku", HAIKU)
    yield process
    process.stop()


@pytest.fixture
def rows(database_url: str) -> Any:
    """Reads the gateway's database."""

    def run(sql: str, *values: Any) -> list[dict[str, Any]]:
        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(database_url)
            try:
                return [dict(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    return run


@pytest.fixture
def tenant(alerting: GatewayProcess, hook: Webhook, mails: Mailbox) -> Iterator[TestTenant]:
    hook.status = 200
    hook.posts.clear()
    mails.mails.clear()
    made = alerting.new_tenant(models=["haiku"])
    yield made
    made.close()


def spend_some(tenant: TestTenant) -> Decimal:
    """What one call cost, in USD."""
    create = tenant.client().chat.completions.with_raw_response.create
    return Decimal(create(model="haiku", messages=say("hello"), max_tokens=16).headers["x-loam-cost-usd"])


def budget(hook: Webhook, cap: Decimal, **more: Any) -> dict[str, Any]:
    alerts = {"slackWebhook": hook.url, "emails": [OPS]}
    return {"budget": {"monthlyUsd": str(cap), "alertPercents": [50, 80, 100], "alerts": alerts} | more}


def put(tenant: TestTenant, hook: Webhook, cap: Decimal) -> dict[str, Any]:
    return tenant.put(models=["haiku"], services=[hook.service], **budget(hook, cap))


def condition(gateway: GatewayProcess, tenant: TestTenant) -> dict[str, Any]:
    state: dict[str, Any] = gateway.get("/states").json()["alerts"][tenant.name]
    return state


def test_each_percentage_that_a_call_passed_is_told_once_by_webhook_and_by_mail(tenant, alerting, hook, mails, rows):
    cost = spend_some(tenant)
    put(tenant, hook, cost * Decimal("1.2"))
    eventually(lambda: len(hook.posts) == len(mails.mails) == 2, "both percentages have been told both ways")
    assert sorted(text.split("%")[0].rsplit(" ", 1)[1] for text in hook.texts) == ["50", "80"]
    assert all(f"Spent: ${cost} of $" in text and "(83%)" in text for text in hook.texts)
    assert {recipient for recipient, _ in mails.mails} == {OPS}
    eventually(lambda: all(row["sent_at"] for row in rows(DELIVERIES, tenant.name)), "it is noted")
    put(tenant, hook, cost * Decimal("1.2"))
    put(tenant, hook, cost * 100)
    put(tenant, hook, cost * Decimal("1.2"))
    raised = alerting.metric("loam_budget_alerts_total")
    assert raised >= 2
    assert len(rows(DELIVERIES, tenant.name)) == len(hook.posts) + len(mails.mails) == 4
    assert condition(alerting, tenant) == {"ready": True, "reason": "Ready", "message": ""}


def test_a_webhooks_url_is_shown_nowhere(tenant, alerting, hook, rows):
    answered = put(tenant, hook, Decimal(5))
    shown = [
        str(answered),
        alerting.get(f"/tenants/{tenant.name}").text,
        alerting.get("/states").text,
        alerting.log(),
        str(rows("SELECT * FROM tenants WHERE name = $1", tenant.name)),
        str(rows("SELECT * FROM audit_log WHERE tenant = $1", tenant.name)),
    ]
    assert [text for text in shown if "services/T0" in text] == []
    assert OPS in shown[-1], "who is told is no secret"


def test_a_webhook_that_is_no_url_at_all_is_told_in_the_status_and_breaks_nothing(tenant, alerting, hook, rows):
    cost = spend_some(tenant)
    absurd = budget(hook, cost * Decimal("1.5"))
    absurd["budget"]["alerts"] = {"slackWebhook": "https://hooks.slack.com/" + "x" * 20_000, "emails": []}
    tenant.put(models=["haiku"], **absurd)
    eventually(lambda: condition(alerting, tenant)["reason"] == "WebhookRefused", "the status says so")
    assert tenant.http().get("/v1/models").status_code == 200


def test_a_webhook_that_was_mended_is_told_at_once(tenant, alerting, hook, rows):
    hook.status = 410
    cost = spend_some(tenant)
    put(tenant, hook, cost * Decimal("1.5"))
    eventually(lambda: condition(alerting, tenant)["reason"] == "WebhookRejected", "the status says so")
    assert condition(alerting, tenant)["message"] == "the webhook answered 410"
    hook.status = 200
    hook.posts.clear()
    rotated = budget(hook, cost * Decimal("1.5"))
    rotated["budget"]["alerts"]["slackWebhook"] += "/rotated"
    tenant.put(models=["haiku"], services=[hook.service], **rotated)
    eventually(lambda: hook.posts, "it is told")
    assert hook.posts[0]["path"].endswith("/rotated")
    eventually(lambda: condition(alerting, tenant)["ready"], "the status says so")


def test_a_message_that_a_killed_gateway_was_sending_is_sent_by_the_next(tenant, alerting, hook, rows):
    cost = spend_some(tenant)
    hook.release.clear()
    put(tenant, hook, cost * Decimal("1.5"))
    eventually(lambda: hook.posts, "the message is under way")
    alerting.kill()
    hook.release.set()
    [cut] = hook.ids
    assert [row["sent_at"] for row in rows(DELIVERIES, tenant.name) if str(row["id"]) == cut] == [None]
    alerting.start()
    eventually(lambda: all(row["sent_at"] for row in rows(DELIVERIES, tenant.name)), "it is sent")
    assert hook.ids == [cut, cut], "whoever got it twice can tell by its id"


def test_an_alert_that_a_killed_gateway_had_no_time_to_raise_is_raised_by_the_next(tenant, alerting, hook, mails):
    cost = spend_some(tenant)
    put(tenant, hook, cost * 3)
    alerting.kill()
    alerting.start()
    put(tenant, hook, cost * Decimal("1.5"))
    alerting.kill()
    alerting.start()
    eventually(lambda: hook.posts and mails.of(OPS), "it is told")
