"""Prompt templates as they are written in files and told to the gateway.

A file is YAML with exactly these fields. `PUT /admin/v1/tenants/{tenant}/templates` takes all templates that a tenant
has of its own, as a TemplatesPut; what is not among them is gone afterwards.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from loam_shared.contracts import Wire

LONGEST_FILE = 65_536
"""Characters of one template's file."""
MOST_TEMPLATES = 200
"""Templates that a tenant may have of its own."""
MOST_CHARACTERS = 2**21
"""Characters of all files of a tenant together."""

TemplateName = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
VariableName = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
_Count = Annotated[int, Field(ge=0, le=10_000_000)]


class Variable(Wire):
    """A value's JSON Schema (2020-12), of the keywords that can be checked in linear time.

    There is no `pattern` and no `$ref`: a tenant's expression must not be able to keep the gateway busy, nor make it
    fetch anything.
    """

    type: Literal["string", "integer", "number", "boolean", "array", "object"]
    title: str | None = None
    description: str | None = None
    default: Any = None
    enum: Annotated[tuple[str | int | float | bool, ...], Field(min_length=1, max_length=1000)] | None = None
    min_length: _Count | None = None
    max_length: _Count | None = None
    minimum: float | None = None
    maximum: float | None = None
    items: "Variable | None" = None
    min_items: _Count | None = None
    max_items: _Count | None = None
    properties: dict[str, "Variable"] | None = None
    required: tuple[str, ...] | None = None
    additional_properties: bool | None = None


class Variables(Wire):
    """The JSON Schema of all variables of a template. One that is not required has a default."""

    type: Literal["object"] = "object"
    properties: Annotated[dict[VariableName, Variable], Field(max_length=100, default_factory=dict)]
    required: tuple[str, ...] = ()
    additional_properties: Literal[False] = False


class TemplateTurn(Wire):
    """One message; ``{{ name }}`` in its content stands for a variable."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=LONGEST_FILE)]


class AnswerSchema(Wire):
    """The JSON Schema that an answer must have."""

    model_config = ConfigDict(alias_generator=None)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Wire):
    """OpenAI's `response_format`."""

    model_config = ConfigDict(alias_generator=None)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: AnswerSchema | None = None


class PromptTemplate(Wire):
    """A prompt with holes, and what it needs. `max_tokens` and `temperature` are defaults that a call may change.

    `model` names a ModelRoute; without it the cheapest with all `capabilities` is picked. `cache_seconds` is how long
    an answer may be served again; 0 is never, and without it the platform's own setting holds.
    """

    name: TemplateName
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    description: Annotated[str, Field(max_length=1000)] = ""
    variables: Variables = Variables()
    messages: Annotated[tuple[TemplateTurn, ...], Field(min_length=1, max_length=64)]
    capabilities: tuple[Literal["Chat", "Stream", "Tools"], ...] = ("Chat",)
    model: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    cache_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] | None = None
    response_format: ResponseFormat | None = None

    @property
    def label(self) -> str:
        """Name and version, as a call pins it."""
        return f"{self.name}@{self.version}"


class TemplatesPut(Wire):
    """All templates of a tenant's own. 409 when the tenant's uid is another."""

    uid: str
    templates: Annotated[tuple[PromptTemplate, ...], Field(max_length=MOST_TEMPLATES)] = ()
