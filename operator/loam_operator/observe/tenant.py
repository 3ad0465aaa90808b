"""Reads what a Tenant depends on."""

from collections.abc import Iterator

from loam_operator.api.v1alpha1 import ApiKey, Tenant
from loam_operator.cluster import Cluster, Ref
from loam_operator.keys import is_owned
from loam_operator.kinds import CONFIG_MAP, NAMESPACE
from loam_operator.labels import PROMPT_TEMPLATE
from loam_operator.observe.secrets import referred
from loam_operator.observe.world import read, read_all, route, secret
from loam_operator.seen import SeenTenant
from loam_operator.settings import Platform


def observe(cluster: Cluster, name: str, platform: Platform) -> SeenTenant | None:
    """Everything about one Tenant; None when it is gone."""
    tenant = read(cluster, Tenant, name)
    if tenant is None:
        return None
    namespace = platform.namespace_of(name)
    credentials = {
        entry.provider: referred(cluster, entry.secret_ref, namespace) for entry in tenant.spec.provider_credentials
    }
    webhook = tenant.spec.budget.alerts.slack_webhook_secret_ref
    return SeenTenant(
        tenant=tenant,
        namespace=namespace,
        live_namespace=cluster.get(Ref(NAMESPACE.api_version, NAMESPACE.kind, namespace)),
        tenants={other.metadata.uid: other.metadata.name for other in read_all(cluster, Tenant)},
        missing_models=tuple(model for model in tenant.spec.models if route(cluster, model) is None),
        credentials={provider: text for provider, text in credentials.items() if text is not None},
        slack_webhook=None if webhook is None else referred(cluster, webhook, namespace),
        key_secrets=tuple(sorted(_key_secrets(cluster, namespace))),
        template_maps=tuple(
            cluster.list(CONFIG_MAP.api_version, CONFIG_MAP.kind, namespace=namespace, labels={PROMPT_TEMPLATE: "true"})
        ),
    )


def _key_secrets(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Secrets made for ApiKeys. An ApiKey may name any Secret, so the name alone says nothing about whose it is."""
    for key in read_all(cluster, ApiKey, namespace):
        found = secret(cluster, key.spec.secret_name, namespace)
        if found is not None and is_owned(found, key.metadata.uid):
            yield key.spec.secret_name
