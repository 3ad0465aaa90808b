"""Whether alerts about a budget arrive is a condition of the Tenant, and no reason not to serve it."""

from collections.abc import AsyncIterator

import pytest

from loam_operator.cluster import Ref

from ._kube import Kube, Manifest, ours, until
from .test_bad_input import namespace, tenant

pytestmark = pytest.mark.kubernetes

NAME = "alerted"
TENANT = ours("Tenant", NAME)
WEBHOOK = {"slackWebhookSecretRef": {"name": "alerts", "key": "slack"}}


def alerted(**alerts: object) -> Manifest:
    return tenant(NAME, budget={"monthlyUsd": "5", "alerts": alerts})


@pytest.fixture
async def cluster(admin: Kube, operator) -> AsyncIterator[Kube]:
    await admin.apply(namespace(NAME, **{"loam.dev/tenant": NAME}))
    yield admin
    await admin.delete(TENANT)


async def until_it_says(kube: Kube, status: str, reason: str) -> None:
    async def said() -> bool:
        return await kube.condition(TENANT, "AlertsReady") == (status, reason)

    await until(said, f"AlertsReady is {status} for {reason}")


async def test_a_secret_that_is_missing_is_named_and_taken_up_when_it_comes(cluster: Kube) -> None:
    await cluster.apply(alerted(**WEBHOOK))
    await until_it_says(cluster, "False", "SecretMissing")
    assert await cluster.condition(TENANT) == ("True", "Ready")
    metadata = {"name": "alerts", "namespace": NAME}
    url = {"slack": "https://hooks.slack.example/services/T0"}
    await cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": url})
    await until_it_says(cluster, "True", "Ready")
    await cluster.delete(Ref("v1", "Secret", "alerts", NAME))
    await until_it_says(cluster, "False", "SecretMissing")
    await cluster.apply(alerted(emails=["ops@alerted.example"]))
    await until_it_says(cluster, "False", "MailNotConfigured")
    assert await cluster.condition(TENANT) == ("True", "Ready")
