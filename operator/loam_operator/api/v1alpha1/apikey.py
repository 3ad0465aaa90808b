"""ApiKey: a key for the public API, kept in a Secret and rotated with overlap."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from loam_operator.api.base import AGE, READY, REASON, Column, Definition, Node, Resource, Time
from loam_operator.api.rules import Rule, Transition, Unique, matching
from loam_operator.api.v1alpha1.common import ObjectName, Status, Text, Usd
from loam_shared.scopes import Scope

User = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matching(r"^[-._@:a-zA-Z0-9]+$", 'must be letters, digits, "-", ".", "_", "@" and ":", such as "backend-service"'),
]


class KeyBudget(Node):
    """Hard caps of this key, within those of its tenant."""

    monthly_usd: Usd | None = None
    """Cap for a calendar month (UTC)."""


class Rotation(Node):
    """When the key is replaced by a new one."""

    every_days: Annotated[int, Field(ge=1, le=3650)]
    """Days that a key is used before a new one takes its place."""
    overlap_hours: Annotated[int, Field(ge=0, le=720)] = 24
    """Hours during which the old key still works beside the new one."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.overlapHours < self.everyDays * 24",
            "must be shorter than everyDays, so that no more than two keys work at once",
            lambda rotation: rotation.overlap_hours < rotation.every_days * 24,
            field="overlapHours",
        ),
    )


class ApiKeySpec(Node):
    """What the key opens, what it may spend and where it is kept."""

    scopes: Annotated[list[Scope], Field(min_length=1, max_length=9), Unique()]
    """What the key opens."""
    budget: KeyBudget = KeyBudget()
    """What it may spend."""
    rotation: Rotation | None = None
    """When it is replaced; never, when left out."""
    user: User | None = None
    """Who is charged when the caller is this key. Fixed once the key is made."""
    secret_name: ObjectName
    """The Secret that the key is written to, under `key`. One that Loam did not make is never overwritten."""

    transitions: ClassVar[tuple[Transition, ...]] = (
        Transition(
            "has(self.user) == has(oldSelf.user) && (!has(self.user) || self.user == oldSelf.user)",
            "must not change, because past spend was charged to it; make another ApiKey instead",
            lambda new, old: new.user == old.user,
            field="user",
        ),
        Transition(
            "self.secretName == oldSelf.secretName",
            "must not change, because pods use the Secret by this name; make another ApiKey instead",
            lambda new, old: new.secret_name == old.secret_name,
            field="secretName",
        ),
    )


class ApiKeyStatus(Status):
    """What the operator has seen; written by the operator only."""

    key_id: Text | None = None
    """The key's id, as usage reports show it."""
    rotated_at: Time | None = None
    """When the present key was made."""
    next_rotation_time: Time | None = None
    """When the next one takes its place."""
    previous_expires_at: Time | None = None
    """Until when the previous key still works."""


class ApiKey(Resource):
    """A key for the public API. The operator writes it to a Secret; the gateway keeps only its hash."""

    definition: ClassVar[Definition] = Definition(
        kind="ApiKey",
        plural="apikeys",
        short_names=("ak",),
        scope="Namespaced",
        columns=(
            Column("Secret", ".spec.secretName", "The Secret that holds the key."),
            Column("Budget", ".spec.budget.monthlyUsd", "USD that it may spend in a calendar month."),
            Column("Rotated", ".status.rotatedAt", "How long ago the present key was made.", type="date"),
            Column("Scopes", ".spec.scopes", "What it opens.", priority=1),
            READY,
            REASON,
            AGE,
        ),
    )

    kind: Literal["ApiKey"]
    spec: ApiKeySpec
    status: ApiKeyStatus = ApiKeyStatus()
