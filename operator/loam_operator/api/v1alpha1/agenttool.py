"""AgentTool: something that agents of the tenant may do."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from loam_operator.api.base import AGE, READY, REASON, Column, Definition, Node, Resource
from loam_operator.api.rules import Rule, Unique, matching
from loam_operator.api.v1alpha1.common import Label, NamedRef, Port, SecretKeyRef, Status, Url, exactly_one

_HEADER = r"^[-!#$%&*+.^_`|~a-zA-Z0-9]+$"
_VARIABLE = r"^[a-zA-Z_][a-zA-Z0-9_]*$"

JsonSchema = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"type": {"type": "string", "maxLength": 16, "description": "Always object."}},
            "x-kubernetes-preserve-unknown-fields": True,
        }
    ),
    Rule(
        "has(self.type) && self.type == 'object'",
        'must be a JSON schema with type: object, such as {"type": "object", "properties": {}}',
        lambda schema: schema.get("type") == "object",
    ),
]
ToolName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matching(r"^[-._/a-zA-Z0-9]+$", 'must be the name of a tool: letters, digits, "-", "_", "." and "/"'),
]


class Value(Node):
    """A text, written here or taken from a Secret."""

    value: Annotated[str, Field(max_length=4096)] | None = None
    """The text itself. Not for secrets."""
    secret_key_ref: SecretKeyRef | None = None
    """The text, in a Secret of the same namespace."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("value", "secret_key_ref"),)


def _named(pattern: str, message: str) -> Rule:
    return Rule(
        f"self.all(name, name.size() <= 128 && name.matches(r'{pattern}'))",
        message,
        lambda values: all(len(name) <= 128 and re.fullmatch(pattern, name) for name in values),
    )


Headers = Annotated[
    dict[str, Value],
    Field(max_length=32),
    _named(_HEADER, 'must name HTTP headers, such as "Authorization"'),
]
Environment = Annotated[
    dict[str, Value],
    Field(max_length=64),
    _named(_VARIABLE, 'must name environment variables, such as "LOG_LEVEL"'),
]


class HttpTool(Node):
    """A call to an HTTP API."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """The method."""
    url: Url
    """The URL; {name} stands for an argument of the call."""
    headers: Headers = {}
    """Headers of the call, by name."""


class McpTool(Node):
    """Tools of an MCP server."""

    url: Url
    """The server's streamable HTTP endpoint."""
    headers: Headers = {}
    """Headers of every call, by name."""
    tools: Annotated[list[ToolName], Field(min_length=1, max_length=64), Unique()]
    """Which of the server's tools may be used."""


class ContainerTool(Node):
    """A container of the tenant's own that answers calls over HTTP."""

    image: Annotated[str, Field(min_length=1, max_length=512)]
    """The image."""
    port: Port
    """The port at which it listens."""
    env: Environment = {}
    """Its environment, by name."""
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    """How many of it run."""


class BuiltinTool(Node):
    """A tool that comes with Loam."""

    name: Label
    """Its name."""


class AgentToolSpec(Node):
    """What the tool does and how it is called."""

    description: Annotated[str, Field(min_length=1, max_length=4096)]
    """What the tool does, for the model that decides whether to use it."""
    input_schema: JsonSchema | None = None
    """The arguments of a call, as a JSON schema; none when left out. MCP servers bring their own."""
    http: HttpTool | None = None
    """A call to an HTTP API."""
    mcp: McpTool | None = None
    """Tools of an MCP server."""
    container: ContainerTool | None = None
    """A container of the tenant's own."""
    rag_pipeline: NamedRef | None = None
    """A search in a RagPipeline of the same namespace."""
    builtin: BuiltinTool | None = None
    """A tool that comes with Loam."""
    timeout_seconds: Annotated[int, Field(ge=1, le=900)] = 10
    """How long a call may take."""
    idempotent: bool = False
    """Whether a call may be repeated when its outcome is unknown. When false it never is."""
    requires_approval: bool = False
    """Whether a person must approve each call."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("http", "mcp", "container", "rag_pipeline", "builtin"),)


class AgentToolStatus(Status):
    """What the operator has seen; written by the operator only."""


class AgentTool(Resource):
    """Something that agents of the tenant may do."""

    definition: ClassVar[Definition] = Definition(
        kind="AgentTool",
        plural="agenttools",
        short_names=("tool",),
        scope="Namespaced",
        columns=(
            Column("Description", ".spec.description", "What the tool does.", priority=1),
            Column("Approval", ".spec.requiresApproval", "Whether a person must approve calls.", type="boolean"),
            READY,
            REASON,
            AGE,
        ),
    )

    kind: Literal["AgentTool"]
    spec: AgentToolSpec
    status: AgentToolStatus = AgentToolStatus()
