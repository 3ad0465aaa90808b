"""Agent: a model that works with tools, within limits."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from loam_operator.api.base import AGE, READY, REASON, Column, Definition, Node, Resource
from loam_operator.api.rules import Rule, Unique
from loam_operator.api.v1alpha1.common import ObjectName, Status, Usd

Replicas = Annotated[int, Field(ge=1, le=1000)]


class Memory(Node):
    """What the agent remembers between runs."""

    type: Literal["None", "Session", "LongTerm"] = "None"
    """Nothing, the session's conversation, or facts beyond it."""
    ttl_hours: Annotated[int, Field(ge=1, le=87_600)] = 24
    """Hours after the last run at which it is forgotten."""


class Limits(Node):
    """What one run may use."""

    max_steps: Annotated[int, Field(ge=1, le=200)] = 12
    """Calls of the model."""
    max_cost_usd: Usd = "0.50"
    """USD, as a hard cap within those of tenant, user and key."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Seconds from start to answer."""
    parallel_tools: Annotated[int, Field(ge=1, le=32)] = 8
    """Tool calls at the same time."""


class AgentServing(Node):
    """The pods that run the agent."""

    min_replicas: Replicas = 1
    """The fewest pods."""
    max_replicas: Replicas = 3
    """The most pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "must be at least minReplicas",
            lambda serving: serving.min_replicas <= serving.max_replicas,
            field="maxReplicas",
        ),
    )


class AgentSpec(Node):
    """What the agent is told, what it may use and how far it may go."""

    model: ObjectName
    """A ModelRoute with the capabilities Chat and Tools, among the tenant's models."""
    instructions: Annotated[str, Field(min_length=1, max_length=16_384)]
    """What the agent is told before the input."""
    tools: Annotated[list[ObjectName], Field(max_length=64), Unique()] = []
    """AgentTools of the same namespace."""
    memory: Memory = Memory()
    """What it remembers."""
    limits: Limits = Limits()
    """What one run may use."""
    serving: AgentServing = AgentServing()
    """The pods that run it."""


class AgentStatus(Status):
    """What the operator has seen; written by the operator only."""

    replicas: Annotated[int, Field(ge=0)] | None = None
    """Pods that run the agent."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """The label selector of these pods."""


class Agent(Resource):
    """A model that works with tools, within limits."""

    definition: ClassVar[Definition] = Definition(
        kind="Agent",
        plural="agents",
        short_names=("ag",),
        scope="Namespaced",
        columns=(
            Column("Model", ".spec.model", "The ModelRoute that it uses."),
            Column("Tools", ".spec.tools", "The AgentTools that it may use.", priority=1),
            READY,
            REASON,
            AGE,
        ),
        scale=(".spec.serving.minReplicas", ".status.replicas", ".status.selector"),
    )

    kind: Literal["Agent"]
    spec: AgentSpec
    status: AgentStatus = AgentStatus()
