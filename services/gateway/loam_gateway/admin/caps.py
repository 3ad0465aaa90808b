"""From the budgets in manifests to the ledger's policies. Pure."""

from collections.abc import Iterator

from loam_gateway.directory.queries import markup_ppm
from loam_gateway.ledger.model import EVERYONE, Period, Policy, Scope
from loam_shared.contracts.admin import Budget, TenantPut
from loam_shared.errors import InvalidRequestError
from loam_shared.money import parse_usd


def tenant_policies(tenant: str, budget: Budget) -> Iterator[Policy]:
    """The tenant's caps; one that is not given takes away the one that was."""
    yield Policy(tenant, Scope.TENANT, Period.MONTH, _nanos("budget.monthlyUsd", budget.monthly_usd))
    yield Policy(tenant, Scope.TENANT, Period.DAY, _nanos("budget.dailyUsd", budget.daily_usd))
    per_user = _nanos("budget.perUserMonthlyUsd", budget.per_user_monthly_usd)
    yield Policy(tenant, Scope.USER, Period.MONTH, per_user, subject=EVERYONE)


def key_policy(tenant: str, key_id: str, monthly_usd: str | None) -> Policy:
    """The key's cap."""
    return Policy(tenant, Scope.KEY, Period.MONTH, _nanos("monthlyUsd", monthly_usd), subject=key_id)


def check_amounts(desired: TenantPut) -> None:
    """Raises InvalidRequestError for what is no amount, before anything is changed."""
    list(tenant_policies("", desired.budget))
    try:
        markup_ppm(desired.markup_percent)
    except ValueError as error:
        raise InvalidRequestError(str(error), param="markupPercent") from error


def _nanos(field: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_usd(text)
    except ValueError as error:
        raise InvalidRequestError(f"{field}: {error}", param=field) from error
