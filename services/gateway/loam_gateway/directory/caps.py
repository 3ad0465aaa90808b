"""From the budgets that are wished for to the ledger's policies. Pure."""

from loam_gateway.directory.queries import markup_ppm
from loam_gateway.ledger.model import EVERYONE, Origin, Period, Policy, Scope
from loam_shared.contracts.admin import Budget, KeyPut, TenantPut
from loam_shared.errors import InvalidRequestError
from loam_shared.money import parse_usd


def tenant_policies(tenant: str, budget: Budget, origin: Origin = Origin.MANIFEST) -> list[Policy]:
    """The tenant's caps; one that is not given takes away the one that was."""
    month = nanos_of("budget.monthlyUsd", budget.monthly_usd)
    day = nanos_of("budget.dailyUsd", budget.daily_usd)
    user_month = nanos_of("budget.perUserMonthlyUsd", budget.per_user_monthly_usd)
    user_day = nanos_of("budget.perUserDailyUsd", budget.per_user_daily_usd)
    return [
        Policy(tenant, Scope.TENANT, Period.MONTH, month, origin=origin),
        Policy(tenant, Scope.TENANT, Period.DAY, day, origin=origin),
        Policy(tenant, Scope.USER, Period.MONTH, user_month, subject=EVERYONE, origin=origin),
        Policy(tenant, Scope.USER, Period.DAY, user_day, subject=EVERYONE, origin=origin),
    ]


def key_policies(tenant: str, key_id: str, key: KeyPut) -> list[Policy]:
    """The key's caps; one that is not given takes away the one that was."""
    month, day = nanos_of("monthlyUsd", key.monthly_usd), nanos_of("dailyUsd", key.daily_usd)
    return [
        Policy(tenant, Scope.KEY, Period.MONTH, month, subject=key_id),
        Policy(tenant, Scope.KEY, Period.DAY, day, subject=key_id),
    ]


def check_amounts(desired: TenantPut) -> None:
    """Raises InvalidRequestError for what is no amount, before anything is changed."""
    tenant_policies("", desired.budget)
    try:
        markup_ppm(desired.markup_percent)
    except ValueError as error:
        raise InvalidRequestError(str(error), param="markupPercent") from error


def nanos_of(field: str, text: str | None) -> int | None:
    """Nano-dollars in `text`; None when nothing is given. Raises InvalidRequestError that names `field`."""
    if text is None:
        return None
    try:
        return parse_usd(text)
    except ValueError as error:
        raise InvalidRequestError(f"{field}: {error}", param=field) from error
