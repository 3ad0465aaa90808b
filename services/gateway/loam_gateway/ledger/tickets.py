"""What waits in the ledger's queue: one ticket per hold, settlement or renewal, answered through its future."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from loam_gateway.ledger.accounts import AccountSet
from loam_gateway.ledger.model import Hold, HoldRequest, Outcome, Posting, Replay, Settlement


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class HoldTicket:
    """A wish for room, `nanos` at the most.

    `held_at` is fixed before the first attempt and stays, so that a repetition finds the first. `attempted` says that
    the hold may have been taken, `renewed` that its moment was fixed a second time. `refused_by` is the account that
    has no room for it.
    """

    request: HoldRequest
    nanos: int
    done: "asyncio.Future[Hold | Replay]" = field(default_factory=_future)
    held_at: datetime | None = None
    accounts: AccountSet | None = None
    attempted: bool = False
    renewed: bool = False
    refused_by: int | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.done.done()

    def anew(self) -> "HoldTicket":
        """The same wish, to be asked for at another moment. Only for one that was certainly not granted."""
        self.held_at, self.accounts, self.attempted, self.renewed = None, None, False, True
        return self

    def hold(self, nanos: int = 0, output_tokens: int = 0, remaining: int | None = None) -> Hold:
        """The hold that was, or may have been, taken."""
        assert self.held_at is not None
        assert self.accounts is not None
        return Hold(self.request, self.held_at, nanos, output_tokens, remaining, self.accounts.ids)


@dataclass(slots=True, eq=False)
class SettleTicket:
    """What became of a hold. It stays in the queue until it is posted, whether anybody waits for it or not."""

    hold: Hold
    settlement: Settlement
    done: "asyncio.Future[Posting]" = field(default_factory=_future)

    @classmethod
    def release(cls, hold: Hold) -> "SettleTicket":
        """Give back a hold that nobody is there to use."""
        return cls(hold, Settlement(cost_nanos=0, outcome=Outcome.RELEASED))


@dataclass(slots=True, eq=False)
class RenewTicket:
    """A later deadline for a hold; answered with whether the hold is still there."""

    hold: Hold
    lifetime: timedelta
    done: "asyncio.Future[bool]" = field(default_factory=_future)


Ticket = HoldTicket | SettleTicket | RenewTicket
