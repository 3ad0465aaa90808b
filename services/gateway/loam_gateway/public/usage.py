"""``/v1/usage``: what was used and what it cost, from the ledger; and the caps, which callers may lower."""

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BeforeValidator

from loam_gateway.auth import caller_with
from loam_gateway.completions.request import parse
from loam_gateway.directory import changes, queries
from loam_gateway.directory.caps import nanos_of, tenant_policies
from loam_gateway.directory.keys import check_still_good
from loam_gateway.directory.model import Principal
from loam_gateway.ledger.accounts import window
from loam_gateway.ledger.model import Balance, Origin, Period, UsageRow
from loam_gateway.ledger.policies import set_policies
from loam_gateway.state import Deps, State
from loam_shared.contracts import Wire
from loam_shared.contracts.admin import Budget
from loam_shared.errors import ForbiddenError, InvalidRequestError
from loam_shared.money import format_usd

router = APIRouter(prefix="/v1/usage")
Reader = Annotated[Principal, Depends(caller_with("usage:read"))]
BudgetWriter = Annotated[Principal, Depends(caller_with("budget:write"))]


def _spelled_out(value: str) -> str:
    """Pydantic would take a number for seconds since 1970, or for milliseconds, by its size."""
    if value.replace(".", "", 1).lstrip("+-").isdigit():
        raise ValueError("should be a date and time, such as 2026-11-01T00:00:00Z")
    return value


Moment = Annotated[datetime, BeforeValidator(_spelled_out)]


@router.get("")
async def usage(
    deps: Deps,
    caller: Reader,
    start: Annotated[Moment | None, Query(alias="from")] = None,
    end: Annotated[Moment | None, Query(alias="to")] = None,
    group_by: Annotated[str, Query(alias="groupBy")] = "",
) -> Response:
    """Sums of the tenant's entries from `from` to before `to` (UTC).

    Without `to` up to now, without `from` since the beginning of the month that `to` lies in.
    """
    until = datetime.now(UTC) if end is None else _utc("to", end)
    since = window(Period.MONTH, until)[0] if start is None else _utc("from", start)
    if since > until:
        raise InvalidRequestError("from: must not be later than to", param="from")
    dimensions = list(dict.fromkeys(name.strip() for name in group_by.split(",") if name.strip()))
    rows = await deps.ledger.usage(caller.tenant, since, until, dimensions)
    return _json({"from": since, "to": until, "groupBy": dimensions, "rows": [_row(row) for row in rows]})


@router.get("/budget")
async def budget(deps: Deps, caller: Reader) -> Response:
    """Everything that this key is charged to: its cap, what is posted and held, and when it begins anew."""
    return await _budget(deps, caller)


class BudgetPut(Wire):
    """Caps of the tenant's own, in USD, at most those of its manifest; null takes one away."""

    monthly_usd: str | None = None
    daily_usd: str | None = None
    per_user_monthly_usd: str | None = None
    per_user_daily_usd: str | None = None


@router.put("/budget")
async def lower_budget(request: Request, deps: Deps, caller: BudgetWriter) -> Response:
    """Put the tenant's own caps. Those of its manifest hold on, so these can only lower them."""
    wanted = parse(BudgetPut, await request.body())
    tenant = await queries.tenant_put(deps.pool, caller.tenant)
    _check_lower(wanted, tenant.budget if tenant else Budget())
    own = Budget(**wanted.model_dump())
    async with changes.changing(deps.pool) as connection:
        await check_still_good(connection, caller)
        policies = tenant_policies(caller.tenant, own, Origin.TENANT)
        await set_policies(connection, policies, actor=f"key {caller.key_id}")
    return await _budget(deps, caller)


def _check_lower(wanted: BudgetPut, manifest: Budget) -> None:
    for field in BudgetPut.model_fields:
        name = str(BudgetPut.model_fields[field].alias)
        own, cap = nanos_of(name, getattr(wanted, field)), nanos_of(name, getattr(manifest, field))
        if own is not None and cap is not None and own > cap:
            raise ForbiddenError(f"{name}: may be at most {format_usd(cap)}, the cap of the Tenant", param=name)


async def _budget(deps: State, caller: Principal) -> Response:
    found = await deps.ledger.budget(caller.tenant, caller.user, caller.key_id)
    return _json({"caps": [_balance(balance) for balance in found]})


def _balance(balance: Balance) -> dict[str, Any]:
    return {
        "scope": balance.scope,
        "subject": balance.subject,
        "period": balance.period,
        "capUsd": _usd(balance.cap_nanos),
        "postedUsd": _usd(balance.posted_nanos),
        "heldUsd": _usd(balance.held_nanos),
        "overrunUsd": _usd(balance.overrun_nanos),
        "remainingUsd": _usd(balance.remaining_nanos),
        "resetsAt": balance.resets_at,
    }


def _row(row: UsageRow) -> dict[str, Any]:
    return row.group | {
        "requests": row.requests,
        "inputTokens": row.tokens.input,
        "outputTokens": row.tokens.output,
        "cacheReadTokens": row.tokens.cache_read,
        "cacheWriteTokens": row.tokens.cache_write,
        "queries": row.tokens.queries,
        "costUsd": format_usd(row.cost_nanos),
        "markupUsd": format_usd(row.markup_nanos),
        "savingUsd": format_usd(row.saving_nanos),
        "estimatedRequests": row.estimated,
        "cachedRequests": row.cached,
        "byokRequests": row.byok,
    }


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else format_usd(nanos)


def _utc(name: str, moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise InvalidRequestError(f"{name}: there is no such time", param=name) from None


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
