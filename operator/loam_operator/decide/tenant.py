"""Whether a Tenant may have its namespace, what it lacks, and whether it is within its budget."""

from loam_operator.api.v1alpha1.tenant import Spend
from loam_operator.decide.facts import Fact, fails, holds, unknown
from loam_operator.labels import ORIGIN, OWNER_UID, TENANT
from loam_operator.seen import SeenTenant
from loam_operator.settings import Platform
from loam_shared.contracts import admin

_NAMESPACE = "NamespaceReady"


def namespace(seen: SeenTenant, platform: Platform) -> Fact:
    """Whether the namespace is this tenant's, or may become so."""
    name = seen.tenant.metadata.name
    if platform.is_reserved(seen.namespace):
        return fails(_NAMESPACE, "NamespaceReserved", f'namespace "{seen.namespace}" is not a tenant\'s to have')
    if seen.live_namespace is None:
        return holds(_NAMESPACE, "Created")
    metadata = seen.live_namespace["metadata"]
    if metadata.get("deletionTimestamp"):
        return fails(_NAMESPACE, "NamespaceTerminating", f'namespace "{seen.namespace}" is being deleted')
    owner = seen.tenants.get(metadata.get("annotations", {}).get(OWNER_UID, ""))
    label = metadata.get("labels", {}).get(TENANT)
    if owner not in {None, name} or label not in {None, name}:
        return fails(
            _NAMESPACE, "NamespaceOwnedByOther", f'namespace "{seen.namespace}" is of tenant "{owner or label}"'
        )
    if label is None and owner is None:
        message = f'namespace "{seen.namespace}" exists; label it {TENANT}={name} to hand it over to this tenant'
        return fails(_NAMESPACE, "NamespaceNotOurs", message)
    return holds(_NAMESPACE, origin(seen))


def origin(seen: SeenTenant) -> str:
    """Whether the operator made the namespace (Created, and deletes it with the Tenant), or was given it (Adopted)."""
    if seen.live_namespace is None:
        return "Created"
    annotations = seen.live_namespace["metadata"].get("annotations", {})
    return str(annotations.get(ORIGIN, "Adopted")) if OWNER_UID in annotations else "Adopted"


def needs(seen: SeenTenant) -> list[Fact]:
    """What the manifest names and nobody has made; everything else is served meanwhile."""
    return [_models(seen), _credentials(seen)]


def _models(seen: SeenTenant) -> Fact:
    if seen.missing_models:
        listed = ", ".join(f'"{name}"' for name in seen.missing_models)
        return fails("ModelsFound", "ModelMissing", f"spec.models lists {listed}, but there is no such ModelRoute")
    return holds("ModelsFound", "Found")


def _credentials(seen: SeenTenant) -> Fact:
    for entry in seen.tenant.spec.provider_credentials:
        if entry.provider not in seen.credentials:
            ref = entry.secret_ref
            message = f'namespace "{seen.namespace}" has no Secret "{ref.name}" with a value under "{ref.key}"'
            return fails("CredentialsFound", "SecretMissing", message)
    return holds("CredentialsFound", "Found")


def alerts(seen: SeenTenant, state: admin.AlertState | None) -> Fact:
    """Whether messages about its budget arrive. Not being told is no reason not to be served."""
    wanted = seen.tenant.spec.budget.alerts
    ref = wanted.slack_webhook_secret_ref
    if ref is None and not wanted.emails:
        return holds("AlertsReady", "NotWanted")
    if ref is not None and seen.slack_webhook is None:
        message = f'namespace "{seen.namespace}" has no Secret "{ref.name}" with a value under "{ref.key}"'
        return fails("AlertsReady", "SecretMissing", message)
    if state is None:
        return unknown("AlertsReady", "NotRead", "the gateway has not said yet how alerts fare")
    return holds("AlertsReady", "Ready") if state.ready else fails("AlertsReady", state.reason, state.message)


def active(seen: SeenTenant) -> Fact:
    """Whether the tenant is switched on."""
    if seen.tenant.spec.suspended:
        return fails("Active", "Suspended", "spec.suspended is true: calls are refused and workloads scaled to zero")
    return holds("Active", "Active")


def within_budget(spend: admin.Spend | None) -> Fact:
    """Whether there is anything left to spend."""
    if spend is None:
        return unknown("WithinBudget", "NotRead", "the gateway has not said yet what was spent")
    if not spend.within_budget:
        return fails("WithinBudget", "BudgetExhausted", "a cap of spec.budget is used up until its window ends")
    return holds("WithinBudget", "WithinBudget")


def spend_status(spend: admin.Spend | None, before: Spend | None) -> Spend | None:
    """The spend for the status; `asOf` moves only when an amount did."""
    if spend is None or (before and (before.month_usd, before.day_usd) == (spend.month_usd, spend.day_usd)):
        return before
    return Spend(month_usd=spend.month_usd, day_usd=spend.day_usd, as_of=spend.as_of)
