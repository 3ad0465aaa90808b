"""One transaction for many tickets: how they go to the database, and how its answers come back to them."""

import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import structlog

from loam_gateway.adapters.postgres import Statement
from loam_gateway.ledger.accounts import FOREVER, AccountKey
from loam_gateway.ledger.clock import Clock
from loam_gateway.ledger.model import Period, Posting, Replay
from loam_gateway.ledger.tickets import HoldTicket, RenewTicket, SettleTicket, Ticket
from loam_shared.errors import (
    BudgetExceededError,
    ForbiddenError,
    IdempotencyConflictError,
    IdempotencyPendingError,
    InvalidApiKeyError,
    LoamError,
    UnavailableError,
)
from loam_shared.money import format_usd, price_of

Row = tuple[Any, ...]

TURN = "SELECT moment, rooms, postings, renewed, answers FROM ledger_turn($1, $2, $3, $4, $5, $6)"
# How long until a server that says nothing at all counts as gone.
ANSWER_SECONDS = 8.0
_SPOKEN = {Period.DAY: "daily", Period.MONTH: "monthly", Period.TOTAL: "total"}
_log = structlog.get_logger()


class Turn:
    """The tickets of one transaction, sorted by what they want. Every hold among them has its accounts."""

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.holds = [ticket for ticket in tickets if isinstance(ticket, HoldTicket)]
        self.settlements = [ticket for ticket in tickets if isinstance(ticket, SettleTicket)]
        self.renewals = [ticket for ticket in tickets if isinstance(ticket, RenewTicket)]
        self._sets = {ticket.accounts.ids for ticket in self.holds if ticket.accounts is not None}
        self._sets.update(ticket.hold.accounts for ticket in self.settlements)
        self._account_ids = sorted({id_ for ids in self._sets for id_ in ids})

    async def run(self, statement: Statement, clock: Clock) -> list[Ticket]:
        """Commit the turn by `statement`, which is TURN prepared, and answer its tickets.

        Returns the tickets that follow from it: holds that nobody waited for any more, to be released, and holds whose
        accounts are not those of the moment any more, to be asked for anew. Raises what the database raises; then no
        ticket was answered.
        """
        repeated = any(ticket.attempted for ticket in self.holds)
        for ticket in self.holds:
            ticket.attempted = True
        done = await statement.fetchrow(
            self._account_ids,
            [_settlement_row(ticket) for ticket in self.settlements],
            [(ticket.hold.request.request_id, ticket.hold.held_at, ticket.lifetime) for ticket in self.renewals],
            [_hold_row(ticket) for ticket in self.holds],
            repeated,
            clock.offset,
            timeout=ANSWER_SECONDS,
        )
        assert done is not None
        clock.set(done["moment"])
        return self._answer(done)

    def _answer(self, done: asyncpg.Record) -> list[Ticket]:
        left = self._left(done["rooms"])
        # Without a list of its own for either, everything went as it was asked for.
        postings = done["postings"] or map(_as_asked, self.settlements)
        for settled, posting in zip(self.settlements, postings, strict=True):
            _answer_settlement(settled, posting, left[settled.hold.accounts])
        for renewal, renewed in zip(self.renewals, done["renewed"] or (), strict=True):
            if not renewal.done.done():
                renewal.done.set_result(renewed)
        answers = done["answers"] or itertools.repeat(None, len(self.holds))
        following = (_answer_hold(ticket, answer, left) for ticket, answer in zip(self.holds, answers, strict=True))
        return [ticket for ticket in following if ticket is not None]

    def _left(self, rooms: Sequence[int | None] | None) -> dict[tuple[int, ...], int | None]:
        """How much the tightest cap leaves to each set of accounts; None where there is none."""
        room = dict(zip(self._account_ids, rooms or (), strict=True))
        return {ids: min((left for id_ in ids if (left := room[id_]) is not None), default=None) for ids in self._sets}


def _answer_hold(
    ticket: HoldTicket, answer: asyncpg.Record | None, left: dict[tuple[int, ...], int | None]
) -> Ticket | None:
    assert ticket.accounts is not None
    if answer is not None and answer["status"] != "granted":
        return _answer_ungranted(ticket, answer)
    nanos, output = (ticket.nanos, ticket.request.max_output_tokens) if answer is None else answer[1:3]
    hold = ticket.hold(nanos, output, left[ticket.accounts.ids])
    if ticket.abandoned:
        return SettleTicket.release(hold)
    ticket.done.set_result(hold)
    return None


def _answer_ungranted(ticket: HoldTicket, answer: asyncpg.Record) -> Ticket | None:
    status = answer["status"]
    if status == "stale" and not ticket.renewed:
        return ticket
    if ticket.abandoned:
        return None
    if status == "replay":
        ticket.done.set_result(Replay(answer["stored"]))
    elif status == "refused":
        assert ticket.accounts is not None
        ticket.refused_by = answer["account"]
        refused_by = ticket.accounts.keys[ticket.accounts.ids.index(answer["account"])]
        ticket.done.set_exception(_exceeded(refused_by, answer["remaining"]))
    else:
        ticket.done.set_exception(refusal(status))
    return None


def _hold_row(ticket: HoldTicket) -> Row:
    """In the order of the SQL type `hold_request`."""
    request, claim, accounts = ticket.request, ticket.request.idempotency, ticket.accounts
    assert accounts is not None
    return (
        request.request_id,
        ticket.held_at,
        timedelta(seconds=request.lifetime_seconds),
        request.fixed_nanos,
        ticket.nanos,
        request.output_nanos_per_million,
        request.max_output_tokens,
        request.min_output_tokens,
        accounts.ids,
        request.root_request_id,
        request.kind,
        request.tenant,
        request.key_id,
        request.user,
        request.run,
        request.pipeline,
        request.agent,
        request.model,
        request.markup_ppm,
        request.byok,
        claim and claim.value,
        claim and claim.body_hash,
    )


def _settlement_row(ticket: SettleTicket) -> Row:
    """In the order of the SQL type `settlement`."""
    settlement, tokens, price = ticket.settlement, ticket.settlement.tokens, ticket.settlement.price
    return (
        ticket.hold.request.request_id,
        ticket.hold.held_at,
        settlement.outcome,
        settlement.estimated,
        settlement.provider,
        settlement.region,
        settlement.model,
        *(tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, tokens.queries),
        *(price.input, price.output, price.cache_read, price.cache_write, price.queries),
        settlement.cost_nanos,
        settlement.saving_nanos,
        settlement.byok,
        settlement.answer,
    )


def _as_asked(ticket: SettleTicket) -> tuple[int, int]:
    """Cost and markup as `ledger_post` writes them."""
    cost = ticket.settlement.cost_nanos
    return cost, price_of(cost, ticket.hold.request.markup_ppm)


def _answer_settlement(ticket: SettleTicket, posting: Sequence[int] | None, left: int | None) -> None:
    if posting is not None and left is not None and left < 0:
        _log.error(
            "a budget is overrun",
            tenant=ticket.hold.request.tenant,
            request_id=str(ticket.hold.request.request_id),
            overrun_usd=format_usd(-left),
        )
    if ticket.done.done():
        return
    if posting is None:
        ticket.done.set_exception(UnavailableError("the ledger does not know this hold"))
        return
    cost, markup = posting
    ticket.done.set_result(Posting(cost, markup, None if left is None else max(0, left)))


def _exceeded(key: AccountKey, remaining: int) -> BudgetExceededError:
    left = format_usd(max(0, remaining))
    resets_at = None if key.window_end == FOREVER else key.window_end.isoformat().replace("+00:00", "Z")
    whose = f"{key.scope} {key.subject}".strip()
    when = f", and it starts anew at {resets_at}" if resets_at else ""
    return BudgetExceededError(
        f"the {_SPOKEN[key.period]} budget of the {whose} has {left} USD left, too little for this request{when}",
        cap=f"{key.scope}{_SPOKEN[key.period].capitalize()}",
        remainingUsd=left,
        resetsAt=resets_at,
    )


def refusal(status: str) -> LoamError:
    """The error for a hold that was not granted for a reason other than money."""
    match status:
        case "suspended":
            return ForbiddenError("the tenant is suspended")
        case "unknown":
            return ForbiddenError("the tenant does not exist any more")
        case "inactive":
            return InvalidApiKeyError("the API key is revoked or expired")
        case "conflict":
            return IdempotencyConflictError("this Idempotency-Key came before with another body")
        case "working":
            told = "the first request with this Idempotency-Key is still being worked on"
            return IdempotencyPendingError(told, retry_after=1)
        case _:  # "posted" and "stale": so much time has passed that the attempt means nothing any more
            return UnavailableError("the ledger took too long to answer", retry_after=1)
