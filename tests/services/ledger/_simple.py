"""The simplest ledger there can be, for the real one to agree with: dictionaries, one thing at a time, told time."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from loam_shared.money import price_of

DAY = timedelta(days=1)
UNLIMITED = float("inf")

# Scope, subject, period; and, of an account, the day or month that its window begins with.
Budget = tuple[str, str, str]
Window = tuple[Budget, str]


@dataclass(frozen=True)
class Wish:
    """What a caller asks for. `lifetime` is the hold's, `claim` an Idempotency-Key with a body."""

    key: str
    user: str | None
    run: str | None
    fixed: int
    output: int
    at_least: int
    price: int
    lifetime: timedelta
    claim: tuple[str, bytes] | None = None

    @property
    def nanos(self) -> int:
        """What it costs at most."""
        return self.fixed + price_of(self.output, self.price)


@dataclass
class Account:
    """One budget in one window."""

    cap: float
    end: datetime
    held: int = 0
    posted: int = 0

    @property
    def room(self) -> float:
        return self.cap - self.held - self.posted


@dataclass
class Taken:
    """A hold: what it took, from which accounts, and until when."""

    wish: Wish
    nanos: int
    tokens: int
    accounts: list[Window]
    expires_at: datetime
    posted: int | None = None


@dataclass
class Claim:
    """What an Idempotency-Key stands for. `answer` is None while the first request is being worked on."""

    body: bytes
    by: Taken
    expires_at: datetime
    answer: bytes | None = None


@dataclass
class SimpleLedger:
    """One tenant's. `makers` says which keys a key's spending counts for as well, `runs` what a run may cost."""

    now: datetime
    makers: dict[str, tuple[str, ...]]
    runs: dict[str, int]
    policies: dict[tuple[Budget, str], int] = field(default_factory=dict)
    accounts: dict[Window, Account] = field(default_factory=dict)
    open: list[Taken] = field(default_factory=list)
    claims: dict[tuple[str, str], Claim] = field(default_factory=dict)
    suspended: bool = False
    revoked: set[str] = field(default_factory=set)

    def ask(self, wish: Wish) -> Taken | str | bytes:
        """A hold, the answer that was kept, or why there is none."""
        accounts = self._open_accounts(wish)
        if self.suspended:
            return "suspended"
        if wish.key in self.revoked:
            return "revoked"
        claim = self._claim(wish)
        if claim is not None and wish.claim is not None:
            return "conflict" if claim.body != wish.claim[1] else claim.answer or "pending"
        granted = self._fit(wish, min(self.accounts[account].room for account in accounts))
        if granted is None:
            return "refused"
        taken = Taken(wish, *granted, accounts, self.now + wish.lifetime)
        for account in accounts:
            self.accounts[account].held += taken.nanos
        self.open.append(taken)
        if wish.claim is not None:
            self.claims[wish.key, wish.claim[0]] = Claim(wish.claim[1], taken, self.now + DAY)
        return taken

    def settle(self, taken: Taken, cost: int, answer: bytes | None = None) -> int:
        """What is posted for it: `cost`, or what was posted before."""
        if taken.posted is not None:
            return taken.posted
        taken.posted = cost
        self.open.remove(taken)
        for account in taken.accounts:
            self.accounts[account].held -= taken.nanos
            self.accounts[account].posted += cost
        self._close_claim(taken, answer)
        return cost

    def renew(self, taken: Taken) -> bool:
        """Whether it is still there."""
        if taken.posted is None:
            taken.expires_at = self.now + taken.wish.lifetime
        return taken.posted is None

    def reap(self) -> int:
        """How many holds were over."""
        expired = [taken for taken in self.open if taken.expires_at <= self.now]
        for taken in expired:
            self.settle(taken, taken.nanos)
        return len(expired)

    def correct(self, taken: Taken, delta: int) -> int | None:
        """What it costs then; None when that would be less than nothing."""
        assert taken.posted is not None
        if taken.posted + delta < 0:
            return None
        taken.posted += delta
        for account in taken.accounts:
            self.accounts[account].posted += delta
        return taken.posted

    def set_cap(self, budget: Budget, origin: str, cap: int | None) -> None:
        """Windows that still run follow."""
        self.policies.pop((budget, origin), None)
        if cap is not None:
            self.policies[budget, origin] = cap
        for (whose, _window), account in self.accounts.items():
            if whose[0] != "run" and account.end > self.now:
                account.cap = self._cap(whose)

    def room(self, wish: Wish) -> float:
        """How much its tightest account has left."""
        return min(self.accounts[account].room for account in self._accounts_of(wish))

    def _accounts_of(self, wish: Wish) -> list[Window]:
        whose = [("tenant", ""), *(("key", key) for key in (wish.key, *self.makers[wish.key]))]
        if wish.user is not None:
            whose.append(("user", wish.user))
        found = [
            ((scope, subject, period), self.now.strftime(form))
            for scope, subject in whose
            for period, form in (("day", "%Y-%m-%d"), ("month", "%Y-%m-01"))
        ]
        return [*found, *([(("run", wish.run, "total"), "1970-01-01")] if wish.run else [])]

    def _open_accounts(self, wish: Wish) -> list[Window]:
        accounts = self._accounts_of(wish)
        for account in accounts:
            if account not in self.accounts:
                self.accounts[account] = Account(self._cap(account[0]), self._end(account))
        return accounts

    def _end(self, account: Window) -> datetime:
        (_scope, _subject, period), start = account
        begun = datetime.fromisoformat(start).replace(tzinfo=UTC)
        if period == "total":
            return datetime.max.replace(tzinfo=UTC)
        return begun + DAY if period == "day" else (begun + 32 * DAY).replace(day=1)

    def _cap(self, budget: Budget) -> float:
        scope, subject, period = budget
        if scope == "run":
            return self.runs[subject]
        subjects = (subject, "*")
        return min(
            (
                cap
                for ((scope_, subject_, period_), _origin), cap in self.policies.items()
                if (scope_, period_) == (scope, period) and subject_ in subjects
            ),
            default=UNLIMITED,
        )

    def _fit(self, wish: Wish, room: float) -> tuple[int, int] | None:
        """Nano-dollars and tokens; the most that there is room for."""
        if wish.nanos == 0:
            return 0, wish.output
        for tokens in range(wish.output, wish.at_least - 1, -1):
            nanos = wish.fixed + price_of(tokens, wish.price)
            if nanos <= room:
                return nanos, tokens
        return None

    def _claim(self, wish: Wish) -> Claim | None:
        claim = self.claims.get((wish.key, wish.claim[0])) if wish.claim else None
        return claim if claim is not None and claim.expires_at > self.now else None

    def _close_claim(self, taken: Taken, answer: bytes | None) -> None:
        if taken.wish.claim is None:
            return
        name = (taken.wish.key, taken.wish.claim[0])
        claim = self.claims.get(name)
        if claim is None or claim.by is not taken:
            return
        if answer is None:
            del self.claims[name]
        else:
            self.claims[name] = replace(claim, answer=answer, expires_at=self.now + DAY)
