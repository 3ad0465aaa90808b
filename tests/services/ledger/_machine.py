"""The ledger, three gateways of it, against the simplest one: any order of anything gives the same grants and sums."""

import asyncio
import contextlib
import os
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule

from loam_gateway.adapters.postgres import Pool, connect
from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import (
    Difference,
    Hold,
    HoldRequest,
    IdempotencyClaim,
    Kind,
    Origin,
    Period,
    Policy,
    Price,
    Replay,
    Scope,
    Settlement,
    Tokens,
)
from loam_shared.errors import (
    BudgetExceededError,
    ConflictError,
    ForbiddenError,
    IdempotencyConflictError,
    IdempotencyPendingError,
    InvalidApiKeyError,
    InvalidRequestError,
)

from ._simple import SimpleLedger, Taken, Wish

_Result = TypeVar("_Result")
# Reaping by itself would blur what is compared.
_NEVER = 3600.0
_GATEWAYS = 3
_MAKERS = {"parent": (), "child": ("parent",), "other": ()}
_RUNS = {"short": 40, "long": 400}
_WORDS_FOR = {
    BudgetExceededError: "refused",
    IdempotencyPendingError: "pending",
    IdempotencyConflictError: "conflict",
    ForbiddenError: "suspended",
    InvalidApiKeyError: "revoked",
}
# Long enough to be there whenever it is looked for, unless the clock is turned; over at once; and over a day's turn.
_LIFETIMES = (timedelta(minutes=30), timedelta(), timedelta(hours=30))

_TENANT = "INSERT INTO tenants (name, uid) VALUES ($1, 'uid')"
_KEY = "INSERT INTO api_keys (tenant, key_id, name, made_by) VALUES ($1, $2, $2, $3)"
_ACCOUNTS = """
SELECT scope::text, subject, period::text, window_start, cap, held, posted, overrun FROM accounts WHERE tenant = $1
"""


class Loop:
    """An event loop in a thread of its own, for rules are no coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def check_invariants(self, *args: Any, **kwargs: Any) -> None:
        """Called after each step."""
        self.bench.counts["steps"] += 1
        super().check_invariants(*args, **kwargs)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """The result of `work`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Bench:
    """Three ledgers on one database, for one machine after the other; `counts` says what was done on them."""

    loop: Loop
    pools: list[Pool]
    ledgers: list[Ledger]
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, url: str) -> Iterator["Bench"]:
        """Ledgers as long as the context lasts."""
        loop = Loop()
        pools = [loop.run(connect(url, 3)) for _ in range(_GATEWAYS)]
        ledgers = [loop.run(_ledger(pool)) for pool in pools]
        try:
            yield cls(loop, pools, ledgers)
        finally:
            for ledger, pool in zip(ledgers, pools, strict=True):
                loop.run(ledger.close())
                loop.run(pool.close())
            loop.close()

    def differences(self) -> list[Difference]:
        """What does not add up, but for caps: by the database's own clock, windows that were over here still run."""
        return [found for found in self.loop.run(self.ledgers[0].verify()) if not found.what.endswith(": cap")]

    def turn_clocks(self, offset: timedelta) -> None:
        """All gateways are this far ahead of the database's clock, and find out with their next transaction."""
        for ledger in self.ledgers:
            ledger._clock.offset = offset


async def _ledger(pool: Pool) -> Ledger:
    ledger = Ledger(pool, reap_seconds=_NEVER)
    await ledger.start()
    return ledger


_NAMES: dict[type, str] = {Taken: "granted", bytes: "replayed"}

# Cap, held, posted, overrun.
Standing = tuple[int | None, int, int, int]

_GATEWAY = st.integers(0, _GATEWAYS - 1)
_OUTPUT = st.integers(0, 40)


@st.composite
def _wishes(draw: st.DrawFn, *, claims: bool = False) -> Wish:
    output = draw(_OUTPUT)
    claim = st.tuples(st.sampled_from("ab"), st.sampled_from([b"x" * 32, b"y" * 32]))
    return Wish(
        key=draw(st.sampled_from(list(_MAKERS))),
        user=draw(st.sampled_from(["ada", "bob", None])),
        run=draw(st.sampled_from([None, None, *_RUNS])),
        fixed=draw(st.integers(0, 60)),
        output=output,
        at_least=draw(st.integers(0, output)),
        price=draw(st.sampled_from([0, 300_000, 1_000_000, 2_700_000])),
        lifetime=draw(st.sampled_from(_LIFETIMES)),
        claim=draw(claim) if claims else None,
    )


_BUDGETS = st.tuples(
    st.sampled_from([("tenant", ""), ("key", "parent"), ("key", "child"), ("user", "ada"), ("user", "*")]),
    st.sampled_from(["day", "month"]),
)


class LedgerMachine(RuleBasedStateMachine):
    """One tenant's life. Every rule does the same to the ledgers and to the simple one, and compares what they say."""

    bench: ClassVar[Bench]
    held = Bundle("held")
    settled = Bundle("settled")

    @initialize()
    def a_new_tenant(self) -> None:
        self.name = f"t{os.urandom(6).hex()}"
        # Noon: hours may pass before midnight, and no real second is near a boundary.
        noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.offset = noon - datetime.now(UTC)
        self.simple = SimpleLedger(noon, _MAKERS, _RUNS)
        self.bench.turn_clocks(self.offset)
        self.pool = self.bench.pools[0]
        self.run(self.pool.execute(_TENANT, self.name))
        for key, makers in _MAKERS.items():
            self.run(self.pool.execute(_KEY, self.name, key, makers[0] if makers else None))

    def check_invariants(self, *args: Any, **kwargs: Any) -> None:
        """Called after each step."""
        self.bench.counts["steps"] += 1
        super().check_invariants(*args, **kwargs)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        self.bench.counts["transactions"] += 1
        return self.bench.loop.run(work)

    # Holds.

    @rule(target=held, by=_GATEWAY, wishes=st.lists(_wishes(), min_size=1, max_size=10))
    def ask_at_once(self, by: int, wishes: list[Wish]) -> Any:
        return multiple(*self.ask(by, wishes))

    @rule(target=held, by=_GATEWAY, wish=_wishes(claims=True))
    def ask_with_an_idempotency_key(self, by: int, wish: Wish) -> Any:
        return multiple(*self.ask(by, [wish]))

    def ask(self, by: int, wishes: list[Wish]) -> list[tuple[Hold, Taken]]:
        """Ask for all at the same time; a gateway admits in the order of arrival."""
        answers = self.run(_hold_all(self.bench.ledgers[by], self.name, wishes))
        granted = []
        for wish, answer in zip(wishes, answers, strict=True):
            expected = self.simple.ask(wish)
            said = (answer.nanos, answer.max_output_tokens) if isinstance(answer, Hold) else answer
            assert said == ((expected.nanos, expected.tokens) if isinstance(expected, Taken) else expected), wish
            self.bench.counts[_NAMES.get(type(expected), expected)] += 1
            if isinstance(answer, Hold) and isinstance(expected, Taken):
                self.bench.counts["clamped"] += expected.tokens < wish.output
                granted.append((answer, expected))
        if len(granted) == len(wishes) == 1:
            assert granted[0][0].remaining_nanos == _limited(self.simple.room(wishes[0]))
        return granted

    @rule(by=_GATEWAY, wish=_wishes(), yields=st.integers(0, 3))
    def give_up_while_asking(self, by: int, wish: Wish, yields: int) -> None:
        self.run(_ask_and_leave(self.bench.ledgers[by], self.name, wish, yields))
        self.simple._open_accounts(wish)
        self.bench.counts["abandoned"] += 1

    @rule(by=_GATEWAY, pair=held)
    def renew(self, by: int, pair: tuple[Hold, Taken]) -> None:
        hold, taken = pair
        try:
            self.run(self.bench.ledgers[by].renew(hold))
            assert self.simple.renew(taken)
        except ConflictError:
            assert not self.simple.renew(taken)

    # What becomes of them.

    @rule(
        target=settled, by=_GATEWAY, pair=consumes(held), cost=st.integers(0, 150), answer=st.none() | st.just(b"kept")
    )
    def settle(self, by: int, pair: tuple[Hold, Taken], cost: int, answer: bytes | None) -> Any:
        hold, taken = pair
        posting = self.run(self.bench.ledgers[by].settle(hold, _paid(cost, answer)))
        assert posting.cost_nanos == self.simple.settle(taken, cost, answer)
        return pair

    @rule(by=_GATEWAY, pair=settled, cost=st.integers(0, 150))
    def settle_again(self, by: int, pair: tuple[Hold, Taken], cost: int) -> None:
        """It changes nothing. What was corrected since is not what was posted then."""
        hold, _taken = pair
        before = self.run(self._accounts())
        self.run(self.bench.ledgers[by].settle(hold, _paid(cost)))
        assert self.run(self._accounts()) == before

    @rule(by=_GATEWAY)
    def reap(self, by: int) -> None:
        self.run(self.bench.ledgers[by].reap())
        self.bench.counts["expired"] += self.simple.reap()

    @rule(by=_GATEWAY, pair=settled, delta=st.integers(-60, 60))
    def correct(self, by: int, pair: tuple[Hold, Taken], delta: int) -> None:
        hold, taken = pair
        try:
            cost = self.run(self.bench.ledgers[by].correct(hold, delta, actor="test", reason="test"))
        except InvalidRequestError:
            cost = None
        assert cost == self.simple.correct(taken, delta)

    # What changes around them.

    @rule(
        by=_GATEWAY,
        budget=_BUDGETS,
        origin=st.sampled_from(list(Origin)),
        cap=st.none() | st.integers(0, 300),
    )
    def set_a_cap(self, by: int, budget: tuple[tuple[str, str], str], origin: Origin, cap: int | None) -> None:
        (scope, subject), period = budget
        policy = Policy(self.name, Scope(scope), Period(period), cap, subject, origin)
        self.run(self.bench.ledgers[by].set_policy(policy))
        self.simple.set_cap((scope, subject, period), origin, cap)

    @rule(hours=st.sampled_from([1, 1, 1, 24, 24 * 31]))
    def time_goes_by(self, hours: int) -> None:
        """An hour, a day or a month."""
        self.offset += timedelta(hours=hours)
        # Months are opened three ahead, by an hourly task that this clock leaves behind.
        if self.offset > timedelta(days=75):
            self.offset -= timedelta(hours=hours)
            return
        self.simple.now += timedelta(hours=hours)
        self.bench.turn_clocks(self.offset)

    @rule(suspended=st.sampled_from([False, False, False, True]))
    def suspend_or_resume(self, suspended: bool) -> None:
        self.simple.suspended = suspended
        self.run(self.pool.execute("UPDATE tenants SET suspended = $2 WHERE name = $1", self.name, suspended))

    @rule(key=st.sampled_from(["child", "other"]), revoked=st.booleans())
    def revoke_or_restore(self, key: str, revoked: bool) -> None:
        (self.simple.revoked.add if revoked else self.simple.revoked.discard)(key)
        sql = "UPDATE api_keys SET revoked_at = $3 WHERE tenant = $1 AND key_id = $2"
        self.run(self.pool.execute(sql, self.name, key, datetime.now(UTC) if revoked else None))

    # What holds in the end. Grants and postings were compared one by one.

    def teardown(self) -> None:
        if not hasattr(self, "simple"):
            return
        found = self.run(self._accounts())
        expected = {
            (*budget, start): (_limited(a.cap), a.held, a.posted, max(0, a.held + a.posted - a.cap))
            for (budget, start), a in self.simple.accounts.items()
        }
        wrong = [
            (name, found.get(name), expected.get(name))
            for name in found.keys() | expected
            if not _same(found.get(name), expected.get(name))
        ]
        assert wrong == [], wrong

    async def _accounts(self) -> dict[tuple[str, str, str, str], Standing]:
        rows = await self.pool.fetch(_ACCOUNTS, self.name)
        return {
            (row["scope"], row["subject"], row["period"], row["window_start"].astimezone(UTC).date().isoformat()): (
                row["cap"],
                row["held"],
                row["posted"],
                row["overrun"],
            )
            for row in rows
        }


def machine_on(bench: Bench) -> type[LedgerMachine]:
    """The machine, for Hypothesis to run on `bench`."""
    return type("Life", (LedgerMachine,), {"bench": bench})


def _same(found: Standing | None, expected: Standing | None) -> bool:
    """An account that nothing is charged to may be there or not, with the cap of whenever it was opened.

    Calls that were given up open some, and so do gateways that have not heard of the turn of their clocks yet.
    """
    if found is not None and expected is not None and (found[1:] != (0, 0, 0) or expected[1:] != (0, 0, 0)):
        return found == expected
    return not any((found or (None,))[1:]) and not any((expected or (None,))[1:])


def _limited(nanos: float) -> int | None:
    return None if nanos == float("inf") else int(nanos)


def _paid(nanos: int, answer: bytes | None = None) -> Settlement:
    return Settlement(cost_nanos=nanos, tokens=Tokens(input=nanos), price=Price(input=1_000_000), answer=answer)


def _request(tenant: str, wish: Wish) -> HoldRequest:
    return HoldRequest(
        root_request_id="r",
        tenant=tenant,
        key_id=wish.key,
        kind=Kind.COMPLETION,
        model="m",
        fixed_nanos=wish.fixed,
        output_nanos_per_million=wish.price,
        max_output_tokens=wish.output,
        min_output_tokens=wish.at_least,
        lifetime_seconds=wish.lifetime.total_seconds(),
        user=wish.user,
        run=wish.run,
        run_cap_nanos=None if wish.run is None else _RUNS[wish.run],
        idempotency=None if wish.claim is None else IdempotencyClaim(*wish.claim),
    )


async def _hold_all(ledger: Ledger, tenant: str, wishes: list[Wish]) -> list[Hold | bytes | str]:
    return await asyncio.gather(*(_hold(ledger, tenant, wish) for wish in wishes))


async def _hold(ledger: Ledger, tenant: str, wish: Wish) -> Hold | bytes | str:
    try:
        hold = await ledger.hold(_request(tenant, wish))
    except tuple(_WORDS_FOR) as error:
        return _WORDS_FOR[type(error)]
    return hold.answer if isinstance(hold, Replay) else hold


async def _ask_and_leave(ledger: Ledger, tenant: str, wish: Wish, yields: int) -> None:
    asking = asyncio.create_task(_hold(ledger, tenant, wish))
    for _ in range(yields + 1):
        await asyncio.sleep(0)
    asking.cancel()
    answers = await asyncio.gather(asking, return_exceptions=True)
    assert not isinstance(answers[0], Hold)
    # What follows in the gateway's queue is behind the release, if there is one.
    nothing = Wish(wish.key, None, None, 0, 0, 0, 0, wish.lifetime)
    for _ in range(2):
        hold = await _hold(ledger, tenant, nothing)
        if isinstance(hold, Hold):
            await ledger.settle(hold, _paid(0))
