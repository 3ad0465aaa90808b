"""Where a Tenant's alerts go is pushed with it, and whether they arrive is a condition of its own."""

import base64
from collections.abc import Callable

import pytest

from loam_operator.cluster import Ref
from loam_operator.decide import tenant
from loam_operator.observe.tenant import observe
from loam_operator.render.tenant import put as render_put
from loam_operator.seen import SeenTenant
from loam_operator.settings import Platform
from loam_shared.contracts.admin import AlertState

TENANT = Ref("loam.dev/v1alpha1", "Tenant", "acme")
REF = {"slackWebhookSecretRef": {"name": "alerts", "key": "slack"}}
URL = "https://hooks.slack.com/services/T0/B0/x"


def secret(value: str) -> dict:
    data = {"slack": base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "alerts", "namespace": "acme"}, "data": data}


def seen(acme) -> SeenTenant:
    found = observe(acme, "acme", Platform())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("alerts", "stored", "said", "reason"),
    [
        ({}, None, AlertState(), "NotWanted"),
        ({"emails": ["ops@acme.example"]}, None, None, "NotRead"),
        ({"emails": ["ops@acme.example"]}, None, AlertState(), "Ready"),
        (REF, None, AlertState(), "SecretMissing"),
        (REF, "", AlertState(), "SecretMissing"),
        (REF, URL, AlertState(), "Ready"),
        (REF, URL, AlertState(ready=False, reason="WebhookRejected", message="it answered 404"), "WebhookRejected"),
    ],
)
def test_the_condition_says_whether_alerts_arrive(
    acme, put: Callable, alerts: dict, stored: str | None, said: AlertState | None, reason: str
) -> None:
    put(TENANT, {"spec": {"budget": {"monthlyUsd": "5", "alerts": alerts}}})
    if stored is not None:
        acme.put(secret(stored))
    fact = tenant.alerts(seen(acme), said)
    assert fact.reason == reason
    assert (fact.status == "True") == (reason in {"Ready", "NotWanted"})


def test_a_webhook_and_the_services_a_tenant_may_have_called_are_pushed_and_a_rotated_one_again(
    acme, put: Callable
) -> None:
    network = {"services": [{"host": "orders.shop.svc", "ports": [8080, 8443]}]}
    budget = {"monthlyUsd": "5", "alerts": REF | {"emails": ["ops@acme.example"]}}
    put(TENANT, {"spec": {"budget": budget, "network": network}})
    assert render_put(seen(acme)).budget.alerts.slack_webhook is None
    for url in (URL, f"{URL}/rotated"):
        acme.put(secret(url))
        told = render_put(seen(acme))
        assert (told.budget.alerts.slack_webhook, told.budget.alerts.emails) == (url, ("ops@acme.example",))
        assert url not in repr(told)
    assert [(service.host, service.ports) for service in told.services] == [("orders.shop.svc", (8080, 8443))]
