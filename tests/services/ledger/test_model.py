"""The ledger against the simplest ledger there can be: any order of anything gives the same sums and refusals."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import Hold, Period, Scope
from loam_shared.errors import BudgetExceededError
from loam_shared.money import price_of

from .conftest import Customer, granted, new_customer, paid

_AMOUNTS = st.integers(0, 60)
_USERS = st.sampled_from(["ada", "bob", None])


@dataclass(frozen=True)
class Wish:
    user: str | None
    fixed: int
    output: int
    at_least: int
    price: int
    lost: bool


@dataclass(frozen=True)
class Wishes:
    """Holds asked for at the same time: admitted in the order of their arrival."""

    by: int
    wishes: list[Wish]


@dataclass(frozen=True)
class Settle:
    by: int
    which: int
    cost: int


@dataclass(frozen=True)
class Cap:
    by: int
    whose: str
    nanos: int | None


@dataclass(frozen=True)
class Reap:
    by: int


_LEDGERS = st.integers(0, 2)
_WISH = st.builds(
    Wish,
    user=_USERS,
    fixed=_AMOUNTS,
    output=st.integers(0, 40),
    at_least=st.integers(0, 10),
    price=st.sampled_from([0, 300_000, 1_000_000, 2_700_000]),
    lost=st.booleans(),
)
_STEPS = st.lists(
    st.one_of(
        st.builds(Wishes, _LEDGERS, st.lists(_WISH, min_size=1, max_size=6)),
        st.builds(Settle, _LEDGERS, st.integers(0, 20), st.integers(0, 150)),
        st.builds(Cap, _LEDGERS, st.sampled_from(["tenant", "ada", "*", "key"]), st.none() | st.integers(0, 250)),
        st.builds(Reap, _LEDGERS),
    ),
    max_size=15,
)


@dataclass
class Simple:
    """The reference: dictionaries, one thing after the other."""

    caps: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    posted: dict[str, int] = field(default_factory=dict)

    def cap(self, account: str) -> float:
        mine = self.caps.get(account, float("inf"))
        return min(mine, self.caps.get("*", float("inf"))) if account in ("ada", "bob") else mine

    def room(self, account: str) -> float:
        return self.cap(account) - self.held.get(account, 0) - self.posted.get(account, 0)

    def admit(self, wish: Wish) -> tuple[int, int] | None:
        """Nano-dollars and tokens that are granted."""
        room = min(self.room(account) for account in accounts_of(wish))
        for tokens in range(wish.output, min(wish.at_least, wish.output) - 1, -1):
            nanos = wish.fixed + price_of(tokens, wish.price)
            if nanos <= room or wish.fixed + price_of(wish.output, wish.price) == 0:
                for account in accounts_of(wish):
                    self.held[account] = self.held.get(account, 0) + nanos
                return nanos, tokens
        return None

    def post(self, wish: Wish, nanos: int, cost: int) -> None:
        for account in accounts_of(wish):
            self.held[account] -= nanos
            self.posted[account] = self.posted.get(account, 0) + cost


def accounts_of(wish: Wish) -> list[str]:
    return ["tenant", "key", *([wish.user] if wish.user else [])]


class Play:
    """Does each step on the real ledgers and on the simple one."""

    def __init__(self, customer: Customer, ledgers: list[Ledger]) -> None:
        self.customer = customer
        self.ledgers = ledgers
        self.simple = Simple()
        self.opened: list[tuple[Wish, Hold]] = []

    async def do(self, step: Wishes | Settle | Cap | Reap) -> None:
        ledger = self.ledgers[step.by]
        match step:
            case Wishes():
                await self.ask(ledger, step.wishes)
            case Settle() if self.opened:
                wish, hold = self.opened.pop(step.which % len(self.opened))
                await ledger.settle(hold, paid(step.cost))
                self.simple.post(wish, hold.nanos, step.cost)
            case Cap():
                await ledger.set_policy(_policy(self.customer, step))
                caps = self.simple.caps | {step.whose: step.nanos}
                self.simple.caps = {whose: cap for whose, cap in caps.items() if cap is not None}
            case Reap():
                await ledger.reap()
                for wish, hold in [pair for pair in self.opened if pair[0].lost]:
                    self.simple.post(wish, hold.nanos, hold.nanos)
                    self.opened.remove((wish, hold))

    async def ask(self, ledger: Ledger, wishes: list[Wish]) -> None:
        answers = await asyncio.gather(*(self.hold(ledger, wish) for wish in wishes))
        for wish, answer in zip(wishes, answers, strict=True):
            assert (answer and (answer.nanos, answer.max_output_tokens)) == self.simple.admit(wish)
            if answer:
                self.opened.append((wish, answer))

    async def hold(self, ledger: Ledger, wish: Wish) -> Hold | None:
        request = self.customer.request(
            wish.fixed,
            user=wish.user,
            output_nanos_per_million=wish.price,
            max_output_tokens=wish.output,
            min_output_tokens=min(wish.at_least, wish.output),
            lifetime_seconds=0 if wish.lost else 600,
        )
        try:
            return granted(await ledger.hold(request))
        except BudgetExceededError:
            return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
async def test_any_sequence_over_three_gateways_agrees_with_the_simplest_ledger(steps, pool, model_ledgers):
    play = Play(await new_customer(pool), model_ledgers)
    for step in steps:
        await play.do(step)
    await _assert_same(play.customer, play.simple)
    assert await model_ledgers[0].verify() == []


def _policy(customer, step):
    match step.whose:
        case "tenant":
            return customer.cap(step.nanos)
        case "key":
            return customer.cap(step.nanos, Scope.KEY, Period.MONTH, "backend")
        case user:
            return customer.cap(step.nanos, Scope.USER, Period.MONTH, user)


async def _assert_same(customer, simple):
    rows = await customer.pool.fetch(
        "SELECT CASE scope WHEN 'user' THEN subject ELSE scope::text END AS account, held, posted, overrun "
        "FROM accounts WHERE tenant = $1 AND (scope = 'tenant') = (period = 'day')",
        customer.name,
    )
    for row in rows:
        account = row["account"]
        held, posted = simple.held.get(account, 0), simple.posted.get(account, 0)
        overrun = max(0, held + posted - simple.cap(account))
        assert (row["held"], row["posted"], row["overrun"]) == (held, posted, overrun), account
