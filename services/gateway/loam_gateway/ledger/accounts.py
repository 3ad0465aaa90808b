"""Which accounts a request touches, and what their ids are."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from loam_gateway.adapters.postgres import Connection
from loam_gateway.ledger.model import HoldRequest, Period, Scope

FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_CACHED = 100_000
_MAKERS = "SELECT ledger_makers(tenant, key_id) FROM unnest($1::text[], $2::text[]) AS k(tenant, key_id)"

_Payer = tuple[str, str, str | None, str | None, int]


class AccountKey(NamedTuple):
    """What an account is found by, in the order of the SQL type `account_key`. `cap` is given for runs only."""

    tenant: str
    scope: Scope
    subject: str
    period: Period
    window_start: datetime
    window_end: datetime
    cap: int | None = None


class AccountSet(NamedTuple):
    """All accounts that one request is charged to, capped or not: a cap may be set later in the window."""

    keys: tuple[AccountKey, ...]
    ids: tuple[int, ...]


def window(period: Period, moment: datetime) -> tuple[datetime, datetime]:
    """Start and end (exclusive) of the calendar window, in UTC, that `moment` lies in."""
    if period is Period.TOTAL:
        return _ALWAYS, FOREVER
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.DAY:
        return midnight, midnight + timedelta(days=1)
    start = midnight.replace(day=1)
    return start, (start + timedelta(days=32)).replace(day=1)


def keys_of(tenant: str, user: str | None, key_ids: Iterable[str], moment: datetime) -> list[AccountKey]:
    """The accounts of tenant, user and keys in the windows that `moment` lies in."""
    whose = [(Scope.TENANT, "")]
    if user is not None:
        whose.append((Scope.USER, user))
    whose += [(Scope.KEY, key_id) for key_id in key_ids]
    return [
        AccountKey(tenant, scope, subject, period, *window(period, moment))
        for scope, subject in whose
        for period in (Period.MONTH, Period.DAY)
    ]


class Accounts:
    """Account sets by who pays and on which day.

    Neither an account's id nor what a key was made with ever changes, so what was once read is kept.
    """

    def __init__(self) -> None:
        self._sets: dict[_Payer, AccountSet] = {}

    def find(self, request: HoldRequest, held_at: datetime) -> AccountSet | None:
        """The accounts of `request`; None when they are not known here, or there is no such tenant."""
        return self._sets.get(_payer(request, held_at))

    def forget(self, request: HoldRequest, held_at: datetime) -> None:
        """These accounts are gone, or take no more holds."""
        self._sets.pop(_payer(request, held_at), None)

    async def open(self, connection: Connection, wanted: Sequence[tuple[HoldRequest, datetime]]) -> None:
        """Read the ids of all accounts of these requests, each with its moment, making accounts on their first use."""
        if len(self._sets) > _MAX_CACHED:
            self._sets.clear()
        payers = {_payer(request, held_at): (request, held_at) for request, held_at in wanted}
        makers = await connection.fetch(_MAKERS, [payer[0] for payer in payers], [payer[1] for payer in payers])
        keys = {
            payer: _keys_of(request, held_at, made_by)
            for (payer, (request, held_at)), (made_by,) in zip(payers.items(), makers, strict=True)
        }
        distinct = list({key[:5]: key for some in keys.values() for key in some}.values())
        found = await connection.fetchval("SELECT ledger_open($1)", distinct)
        ids = {key[:5]: id_ for key, id_ in zip(distinct, found, strict=True)}
        for payer, some in keys.items():
            known = tuple(ids[key[:5]] for key in some)
            if None not in known:
                self._sets[payer] = AccountSet(some, known)


def _payer(request: HoldRequest, held_at: datetime) -> _Payer:
    return request.tenant, request.key_id, request.user, request.run, held_at.toordinal()


def _keys_of(request: HoldRequest, held_at: datetime, makers: Sequence[str]) -> tuple[AccountKey, ...]:
    keys = keys_of(request.tenant, request.user, (request.key_id, *makers), held_at)
    if request.run is not None:
        total = window(Period.TOTAL, held_at)
        keys.append(AccountKey(request.tenant, Scope.RUN, request.run, Period.TOTAL, *total, request.run_cap_nanos))
    return tuple(keys)
