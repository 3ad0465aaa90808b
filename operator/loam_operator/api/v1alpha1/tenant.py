"""Tenant: one manifest that gives a team its isolated, budgeted place."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from loam_operator.api.base import AGE, READY, REASON, Column, Definition, Node, Resource, Time
from loam_operator.api.rules import Rule, Unique, matching
from loam_operator.api.v1alpha1.common import (
    BucketName,
    Cidr,
    Host,
    Label,
    ObjectName,
    Percent,
    Ports,
    Provider,
    Resources,
    SecretKeyRef,
    Status,
    Text,
    Usd,
)

Email = Annotated[
    str,
    Field(max_length=254),
    matching(
        r"^[-A-Za-z0-9!#$%&\x27*+/=?^_`{|}~]+(\.[-A-Za-z0-9!#$%&\x27*+/=?^_`{|}~]+)*"
        r"@[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*$",
        'must be an e-mail address, such as "ops@example.com"',
    ),
]


class Subject(Node):
    """A person, group or ServiceAccount, as Kubernetes' RBAC knows it."""

    kind: Literal["User", "Group", "ServiceAccount"]
    """What the name is the name of."""
    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The name, as the cluster's authentication gives it."""
    namespace: Label | None = None
    """The namespace of a ServiceAccount."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.kind == 'ServiceAccount') == has(self.namespace)",
            "must be set for a ServiceAccount, and left out for a User or Group",
            lambda subject: (subject.kind == "ServiceAccount") == (subject.namespace is not None),
            field="namespace",
        ),
    )


class Alerts(Node):
    """Whom to tell when spend passes one of the percentages."""

    slack_webhook_secret_ref: SecretKeyRef | None = None
    """A Slack webhook's URL, in a Secret of the tenant's namespace."""
    emails: Annotated[list[Email], Field(max_length=16), Unique()] = []
    """Addresses that get a mail."""


class TenantBudget(Node):
    """Hard caps in USD: no call goes out that could pass one. What is left out is not capped."""

    monthly_usd: Usd | None = None
    """Cap of the whole tenant for a calendar month (UTC)."""
    daily_usd: Usd | None = None
    """Cap of the whole tenant for a day (UTC)."""
    per_user_monthly_usd: Usd | None = None
    """Cap of each of its users for a calendar month (UTC)."""
    alert_percents: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=10), Unique()] = [50, 80, 100]
    """Percentages of a cap at which people are told."""
    alerts: Alerts = Alerts()
    """Whom to tell."""


class TenantRateLimit(Node):
    """Limits of the whole tenant. What is left out is not limited."""

    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Requests per minute."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=10_000_000_000)] | None = None
    """Input and output tokens per minute."""
    concurrent_requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests at the same time."""


class Egress(Node):
    """A network outside that the tenant's pods may reach."""

    cidr: Cidr
    """The network, such as 203.0.113.0/24."""
    ports: Ports
    """TCP ports, at least one."""


class NetworkService(Node):
    """A service that the tenant's tools may call."""

    host: Host
    """Its address in the cluster, such as orders.shop.svc; on the local platform a loopback address."""
    ports: Ports
    """TCP ports, at least one."""


class Network(Node):
    """What the tenant's pods may reach beyond DNS, the gateway and the platform. Everything else is denied."""

    egress: Annotated[list[Egress], Field(max_length=64)] = []
    """Networks outside the cluster."""
    services: Annotated[list[NetworkService], Field(max_length=64)] = []
    """Services inside it, exactly these."""


class ProviderCredential(Node):
    """The tenant's own key for a provider: its calls go out on its own account and cost no platform credit."""

    provider: Provider
    """The provider that the key is for."""
    secret_ref: SecretKeyRef
    """The key, in a Secret of the tenant's namespace."""


class Storage(Node):
    """Documents and indexes."""

    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """What becomes of documents and indexes when the Tenant is deleted. The ledger stays for its retention time.

    Retained data is given to nobody else; a new Tenant takes it over with the annotation loam.dev/adopt: "true".
    """
    source_buckets: Annotated[list[BucketName], Field(max_length=32), Unique()] = []
    """S3 buckets that the tenant's pipelines may read."""


class Billing(Node):
    """How the tenant pays the platform."""

    plan: Text | None = None
    """Name of the plan."""
    markup_percent: Percent = "0"
    """What is added to the provider's price on the invoice. It lies outside the caps."""
    stripe_customer_id: Text | None = None
    """The customer at Stripe."""


class TenantSpec(Node):
    """Who may do what, with which models, within which limits. Everything may be left out: nothing is then allowed."""

    display_name: Text = ""
    """The name shown to people."""
    owners: Annotated[list[Subject], Field(max_length=64)] = []
    """Who fully controls the tenant's Loam objects."""
    members: Annotated[list[Subject], Field(max_length=256)] = []
    """Who may look at them."""
    models: Annotated[list[ObjectName], Field(max_length=128), Unique()] = []
    """ModelRoutes that the tenant may use; none unless listed."""
    budget: TenantBudget = TenantBudget()
    """Hard caps on what it spends."""
    rate_limit: TenantRateLimit = TenantRateLimit()
    """Limits on how fast it asks."""
    quota: Resources = {}
    """The hard limits of its namespace's ResourceQuota; the LimitRange derives from them."""
    network: Network = Network()
    """What its pods may reach."""
    provider_credentials: Annotated[list[ProviderCredential], Field(max_length=8), Unique("provider")] = []
    """Its own keys for providers, one for each provider at most."""
    storage: Storage = Storage()
    """Its documents and indexes."""
    billing: Billing = Billing()
    """How it pays."""
    suspended: bool = False
    """When true the gateway answers 403 and workloads scale to zero; nothing is deleted."""


class Spend(Node):
    """Posted spend of the current windows (UTC)."""

    month_usd: Usd
    """USD spent in this calendar month."""
    day_usd: Usd
    """USD spent today."""
    as_of: Time
    """When this was read."""


class TenantStatus(Status):
    """What the operator has seen; written by the operator only."""

    namespace: Text | None = None
    """The tenant's namespace."""
    endpoint: Annotated[str, Field(max_length=2048)] | None = None
    """The URL at which its callers reach the gateway."""
    spend: Spend | None = None
    """What it has spent."""


_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def _is_not_reserved(name: str) -> bool:
    return name != "default" and not name.startswith(("kube-", "loam-"))


class Tenant(Resource):
    """A team or customer. It owns the namespace of the same name, and all that isolates and limits what it does."""

    definition: ClassVar[Definition] = Definition(
        kind="Tenant",
        plural="tenants",
        short_names=("ten",),
        scope="Cluster",
        columns=(
            Column("Namespace", ".status.namespace", "The tenant's namespace."),
            Column("Spent", ".status.spend.monthUsd", "USD spent in this calendar month."),
            Column("Budget", ".spec.budget.monthlyUsd", "USD that may be spent in a calendar month."),
            Column("Suspended", ".spec.suspended", "Whether it is switched off.", type="boolean", priority=1),
            READY,
            REASON,
            AGE,
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.matches(r'{_NAME}') && self.metadata.name.size() <= 50",
            'must be at most 50 lower-case letters, digits and "-", because it names the namespace',
            lambda tenant: len(tenant.metadata.name) <= 50 and bool(re.fullmatch(_NAME, tenant.metadata.name)),
            field="metadata.name",
        ),
        Rule(
            "!(self.metadata.name == 'default' || self.metadata.name.startsWith('kube-') "
            "|| self.metadata.name.startsWith('loam-'))",
            'must not be "default" or begin with "kube-" or "loam-": those namespaces are reserved',
            lambda tenant: _is_not_reserved(tenant.metadata.name),
            field="metadata.name",
        ),
    )

    kind: Literal["Tenant"]
    spec: TenantSpec
    status: TenantStatus = TenantStatus()
