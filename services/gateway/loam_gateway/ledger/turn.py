"""One transaction for many tickets: how they go to the database, and how its answers come back to them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import structlog

from loam_gateway.adapters.postgres import Connection
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

_TURN = "SELECT moment, postings, renewed, answers FROM ledger_turn($1, $2, $3, $4, $5, $6)"
_SPOKEN = {Period.DAY: "daily", Period.MONTH: "monthly", Period.TOTAL: "total"}
_log = structlog.get_logger()


class Turn:
    """The tickets of one transaction, sorted by what they want."""

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.holds = [ticket for ticket in tickets if isinstance(ticket, HoldTicket)]
        self.settlements = [ticket for ticket in tickets if isinstance(ticket, SettleTicket)]
        self.renewals = [ticket for ticket in tickets if isinstance(ticket, RenewTicket)]
        touched = {id_ for hold in self.holds for id_ in hold.accounts}
        touched.update(id_ for ticket in self.settlements for id_ in ticket.hold.accounts)
        self._account_ids = sorted(touched)

    async def run(self, connection: Connection, clock: Clock) -> list[Ticket]:
        """Commit the turn and answer its tickets. Returns the tickets that follow from it.

        Raises what the database raises; then no ticket was answered.
        """
        slots = {id_: slot for slot, id_ in enumerate(self._account_ids, start=1)}
        repeated = any(ticket.attempted for ticket in self.holds)
        for ticket in self.holds:
            ticket.attempted = True
        done = await connection.fetchrow(
            _TURN,
            self._account_ids,
            [_settlement_row(ticket) for ticket in self.settlements],
            [(ticket.hold.request.request_id, ticket.hold.held_at, ticket.lifetime) for ticket in self.renewals],
            [_hold_row(ticket, slots) for ticket in self.holds],
            repeated,
            clock.offset,
        )
        assert done is not None
        clock.set(done["moment"])
        return self._answer(done)

    def _answer(self, done: asyncpg.Record) -> list[Ticket]:
        for settled, posting in zip(self.settlements, done["postings"] or (), strict=True):
            _answer_settlement(settled, posting)
        for renewal, renewed in zip(self.renewals, done["renewed"] or (), strict=True):
            if not renewal.done.done():
                renewal.done.set_result(renewed)
        answers = zip(self.holds, done["answers"] or (), strict=True)
        following = [self._answer_hold(ticket, answer) for ticket, answer in answers]
        return [ticket for ticket in following if ticket is not None]

    def _answer_hold(self, ticket: HoldTicket, answer: asyncpg.Record) -> Ticket | None:
        status = answer["status"]
        if status == "granted":
            hold = ticket.hold(answer["nanos"], answer["output_tokens"], answer["remaining"])
            if ticket.abandoned:
                return SettleTicket.release(hold)
            ticket.done.set_result(hold)
        elif status == "stale" and not ticket.renewed:
            return ticket.anew()
        elif not ticket.abandoned:
            self._refuse(ticket, answer)
        return None

    def _refuse(self, ticket: HoldTicket, answer: asyncpg.Record) -> None:
        status = answer["status"]
        if status == "replay":
            ticket.done.set_result(Replay(answer["stored"]))
        elif status == "refused":
            refused_by = ticket.accounts.index(self._account_ids[answer["slot"] - 1])
            ticket.done.set_exception(_exceeded(ticket.keys[refused_by], answer["remaining"]))
        else:
            ticket.done.set_exception(refusal(status))


def _hold_row(ticket: HoldTicket, slots: dict[int, int]) -> Row:
    """In the order of the SQL type `hold_request`."""
    request, claim = ticket.request, ticket.request.idempotency
    return (
        request.request_id,
        ticket.held_at,
        timedelta(seconds=request.lifetime_seconds),
        request.fixed_nanos,
        request.fixed_nanos + price_of(request.max_output_tokens, request.output_nanos_per_million),
        request.output_nanos_per_million,
        request.max_output_tokens,
        request.min_output_tokens,
        ticket.accounts,
        [slots[id_] for id_ in ticket.accounts],
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
        settlement.answer,
    )


def _answer_settlement(ticket: SettleTicket, posting: asyncpg.Record | None) -> None:
    if posting is not None and posting["overrun"]:
        _log.error(
            "a budget is overrun",
            tenant=ticket.hold.request.tenant,
            request_id=str(ticket.hold.request.request_id),
            overrun_usd=format_usd(posting["overrun"]),
        )
    if ticket.done.done():
        return
    if posting is None:
        ticket.done.set_exception(UnavailableError("the ledger does not know this hold"))
        return
    remaining = posting["remaining"]
    ticket.done.set_result(
        Posting(posting["cost"], posting["markup"], None if remaining is None else max(0, remaining))
    )


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
