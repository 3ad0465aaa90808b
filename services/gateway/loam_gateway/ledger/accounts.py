"""Which accounts a request touches, and what their ids are."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from loam_gateway.adapters.postgres import Connection
from loam_gateway.ledger.model import HoldRequest, Period, Scope

FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_CACHED = 200_000


class AccountKey(NamedTuple):
    """What an account is found by, in the order of the SQL type `account_key`. `cap` is given for runs only."""

    tenant: str
    scope: Scope
    subject: str
    period: Period
    window_start: datetime
    window_end: datetime
    cap: int | None = None


def window(period: Period, moment: datetime) -> tuple[datetime, datetime]:
    """Start and end (exclusive) of the calendar window, in UTC, that `moment` lies in."""
    if period is Period.TOTAL:
        return _ALWAYS, FOREVER
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.DAY:
        return midnight, midnight + timedelta(days=1)
    start = midnight.replace(day=1)
    return start, (start + timedelta(days=32)).replace(day=1)


def keys_of(request: HoldRequest, held_at: datetime) -> tuple[AccountKey, ...]:
    """Every account that the request is charged to, capped or not: a cap may be set later in the window."""
    month = window(Period.MONTH, held_at)
    keys = [
        AccountKey(request.tenant, Scope.TENANT, "", Period.MONTH, *month),
        AccountKey(request.tenant, Scope.TENANT, "", Period.DAY, *window(Period.DAY, held_at)),
        AccountKey(request.tenant, Scope.KEY, request.key_id, Period.MONTH, *month),
    ]
    if request.user is not None:
        keys.append(AccountKey(request.tenant, Scope.USER, request.user, Period.MONTH, *month))
    if request.run is not None:
        total = window(Period.TOTAL, held_at)
        keys.append(AccountKey(request.tenant, Scope.RUN, request.run, Period.TOTAL, *total, request.run_cap_nanos))
    return tuple(keys)


class AccountIds:
    """Ids by key. An id never changes, so what was once read is kept."""

    def __init__(self) -> None:
        self._ids: dict[tuple[object, ...], int] = {}

    def get(self, key: AccountKey) -> int | None:
        """The id; None when it is not known here, or there is no such tenant."""
        return self._ids.get(key[:5])

    def forget(self, keys: Iterable[AccountKey]) -> None:
        """The database has no such accounts any more."""
        for key in keys:
            self._ids.pop(key[:5], None)

    async def learn(self, connection: Connection, keys: Iterable[AccountKey]) -> None:
        """Read the ids that are not known yet, making accounts on their first use."""
        unknown = list(self._unknown(keys))
        if not unknown:
            return
        if len(self._ids) > _MAX_CACHED:
            self._ids.clear()
        ids = await connection.fetchval("SELECT ledger_open($1)", unknown)
        self._ids.update((key[:5], id_) for key, id_ in zip(unknown, ids, strict=True) if id_ is not None)

    def _unknown(self, keys: Iterable[AccountKey]) -> Iterator[AccountKey]:
        seen = set()
        for key in keys:
            if key[:5] not in self._ids and key[:5] not in seen:
                seen.add(key[:5])
                yield key
