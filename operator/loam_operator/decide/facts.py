"""Facts and how they become conditions. A fact is one named check with its outcome, reason and sentence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from loam_operator.api.v1alpha1 import Condition

READY = "Ready"
_LONGEST_MESSAGE = 4096


@dataclass(frozen=True, slots=True)
class Fact:
    """What one check found."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def holds(kind: str, reason: str, message: str = "") -> Fact:
    """A check that passed."""
    return Fact(kind, "True", reason, message)


def fails(kind: str, reason: str, message: str) -> Fact:
    """A check that did not pass, and why."""
    return Fact(kind, "False", reason, message)


def unknown(kind: str, reason: str, message: str) -> Fact:
    """A check that could not be made, and why."""
    return Fact(kind, "Unknown", reason, message)


def ready(facts: Iterable[Fact], message: str = "") -> Fact:
    """Ready sums up: the first fact that does not hold gives the reason."""
    for fact in facts:
        if fact.status != "True":
            return Fact(READY, "False", fact.reason, fact.message)
    return holds(READY, READY, message)


def conditions(
    facts: Sequence[Fact], before: Sequence[Condition], *, generation: int, now: datetime
) -> list[Condition]:
    """The facts as conditions; a timestamp moves only when the status did."""
    since = {condition.type: condition for condition in before}
    return [_condition(fact, since.get(fact.type), generation, now) for fact in facts]


def _condition(fact: Fact, before: Condition | None, generation: int, now: datetime) -> Condition:
    unchanged = before is not None and before.status == fact.status
    return Condition(
        type=fact.type,
        status=fact.status,
        reason=fact.reason,
        message=fact.message[:_LONGEST_MESSAGE],
        last_transition_time=before.last_transition_time if before and unchanged else now,
        observed_generation=generation,
    )
