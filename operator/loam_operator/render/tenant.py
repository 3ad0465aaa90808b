"""A Tenant as objects of its namespace, and as the gateway is told of it. Pure: what was seen in, manifests out."""

from loam_operator.api.v1alpha1 import Tenant
from loam_operator.api.v1alpha1.tenant import Subject
from loam_operator.cluster import Manifest
from loam_operator.labels import ORIGIN
from loam_operator.names import OPERATOR_SECRETS, STORAGE_SECRET
from loam_operator.render import network, quota
from loam_operator.render.metadata import manifest, metadata, opaque
from loam_operator.seen import SeenTenant
from loam_operator.settings import Platform
from loam_shared.contracts import admin
from loam_shared.contracts.templates import PromptTemplate, TemplatesPut

ADOPT = "loam.dev/adopt"
"""Annotation of a Tenant: "true" takes over what a Tenant of the same name left behind."""
_RBAC, _RBAC_GROUP = "rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
_POD_SECURITY = {
    f"pod-security.kubernetes.io/{mode}{suffix}": level
    for mode in ("enforce", "audit", "warn")
    for suffix, level in (("", "restricted"), ("-version", "latest"))
}


def render(seen: SeenTenant, origin: str, platform: Platform) -> list[Manifest]:
    """Everything of the tenant's but its storage Secret, in the order in which it is applied."""
    return [
        namespace(seen, origin),
        *_rights(seen, platform),
        *quota.render(seen),
        *network.render(seen, platform),
    ]


def namespace(seen: SeenTenant, origin: str) -> Manifest:
    """The namespace: every pod in it obeys the `restricted` Pod Security standard."""
    tenant = seen.tenant
    meta = metadata(tenant, tenant.metadata.name, seen.namespace, namespace=None, annotations={ORIGIN: origin})
    return manifest("v1", "Namespace", meta | {"labels": meta["labels"] | _POD_SECURITY})


def storage(seen: SeenTenant, grant: admin.StorageGrant) -> Manifest:
    """The Secret that tells pods where documents lie, and as whom to reach them, as environment variables."""
    values = {
        "LOAM_STORAGE_BUCKET": grant.bucket,
        "LOAM_STORAGE_PREFIX": grant.prefix,
        "AWS_REGION": grant.region,
        "AWS_ENDPOINT_URL_S3": grant.endpoint,
        "AWS_ACCESS_KEY_ID": grant.access_key_id,
        "AWS_SECRET_ACCESS_KEY": grant.secret_access_key,
    }
    given = {name: value for name, value in values.items() if value is not None}
    meta = metadata(seen.tenant, seen.tenant.metadata.name, STORAGE_SECRET, namespace=seen.namespace)
    return manifest("v1", "Secret", meta, **opaque(given))


def put(seen: SeenTenant) -> admin.TenantPut:
    """The tenant as the gateway is told of it."""
    tenant, spec = seen.tenant, seen.tenant.spec
    return admin.TenantPut(
        uid=tenant.metadata.uid,
        adopt=tenant.metadata.annotations.get(ADOPT) == "true",
        display_name=spec.display_name,
        models=tuple(spec.models),
        budget=admin.Budget(
            monthly_usd=spec.budget.monthly_usd,
            daily_usd=spec.budget.daily_usd,
            per_user_monthly_usd=spec.budget.per_user_monthly_usd,
            alert_percents=tuple(spec.budget.alert_percents),
            alerts=admin.AlertTargets(slack_webhook=seen.slack_webhook, emails=tuple(spec.budget.alerts.emails)),
        ),
        rate_limit=admin.RateLimit.model_validate(spec.rate_limit.to_manifest()),
        provider_credentials=tuple(
            admin.ProviderCredential(provider=entry.provider, secret=seen.credentials[entry.provider])
            for entry in spec.provider_credentials
            if entry.provider in seen.credentials
        ),
        source_buckets=tuple(spec.storage.source_buckets),
        services=tuple(
            admin.NetworkService(host=service.host, ports=tuple(service.ports)) for service in spec.network.services
        ),
        markup_percent=spec.billing.markup_percent,
        suspended=spec.suspended,
    )


def put_templates(seen: SeenTenant, templates: tuple[PromptTemplate, ...]) -> TemplatesPut:
    """The tenant's own prompt templates as the gateway is told of them."""
    return TemplatesPut(uid=seen.tenant.metadata.uid, templates=templates)


def _rights(seen: SeenTenant, platform: Platform) -> list[Manifest]:
    """Who may do what. The operator's own right to Secrets comes first, since it needs it for the rest."""
    spec = seen.tenant.spec
    operator = Subject(kind="ServiceAccount", name=platform.operator_service_account, namespace=platform.namespace)
    rights = [_binding(seen, OPERATOR_SECRETS, "ClusterRole", "loam-tenant-secrets", [operator])]
    if spec.owners:
        rights.append(_binding(seen, "loam-owners", "ClusterRole", "loam-tenant-owner", spec.owners))
    if spec.members:
        rights.append(_binding(seen, "loam-members", "ClusterRole", "loam-tenant-member", spec.members))
    if spec.owners and seen.key_secrets:
        rights += [_key_readers(seen), _binding(seen, "loam-key-readers", "Role", "loam-key-readers", spec.owners)]
    return rights


def _key_readers(seen: SeenTenant) -> Manifest:
    """Owners may read the Secrets of their ApiKeys, by name, and no other Secret."""
    meta = metadata(seen.tenant, seen.tenant.metadata.name, "loam-key-readers", namespace=seen.namespace)
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(seen.key_secrets), "verbs": ["get"]}
    return manifest(_RBAC, "Role", meta, rules=[rule])


def _binding(seen: SeenTenant, name: str, kind: str, role: str, subjects: list[Subject]) -> Manifest:
    tenant: Tenant = seen.tenant
    return manifest(
        _RBAC,
        "RoleBinding",
        metadata(tenant, tenant.metadata.name, name, namespace=seen.namespace),
        roleRef={"apiGroup": _RBAC_GROUP, "kind": kind, "name": role},
        subjects=[_subject(subject) for subject in subjects],
    )


def _subject(subject: Subject) -> dict[str, str]:
    whole = {"kind": subject.kind, "name": subject.name}
    if subject.namespace is not None:
        return whole | {"namespace": subject.namespace}
    return whole | {"apiGroup": _RBAC_GROUP}
