"""What every kind is made of: nodes that refuse what is unknown, metadata, and a resource with its definition."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, PlainSerializer, Strict, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from loam_operator.api.rules import VALIDATIONS, Rule, Transition, obey

GROUP = "loam.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


def _to_seconds(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[datetime, Strict(False), PlainSerializer(_to_seconds, when_used="json")]
"""A moment in UTC, written as Kubernetes writes them, in whole seconds."""


class Node(BaseModel):
    """A piece of a manifest: camelCase outside, immutable, exact about types and about names."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()
    transitions: ClassVar[tuple[Transition, ...]] = ()

    @model_validator(mode="after")
    def _obey(self) -> Self:
        return obey(self, self.rules)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler.resolve_ref_schema(handler(schema))
        if cls.rules or cls.transitions:
            entries = [rule.to_crd() for rule in cls.rules] + [rule.to_crd() for rule in cls.transitions]
            json_schema[VALIDATIONS] = entries
        return json_schema

    def to_manifest(self) -> dict[str, Any]:
        """The node as it stands in a manifest, defaults included, without what is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_NAMED = Rule(
    f"self.matches('^{_SUBDOMAIN}$')",
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character",
    lambda name: re.fullmatch(_SUBDOMAIN, name) is not None,
)


class ObjectMeta(BaseModel):
    """The part of an object's metadata that Loam looks at. Kubernetes itself knows the rest, and judges it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: Annotated[str, Field(max_length=253), _NAMED]
    namespace: str | None = None
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Condition(Node):
    """One thing that is true of an object, or not, and why."""

    type: Annotated[str, Field(max_length=63)]
    """What the condition is about, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=63)]
    """The reason in one CamelCase word, for machines."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """The reason in a sentence, for people."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The generation of the object that this was said about."""


@dataclass(frozen=True)
class Column:
    """A column of ``kubectl get``; priority 1 shows only with ``-o wide``."""

    name: str
    path: str
    description: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True)
class Definition:
    """What a CRD says beside the schema. `scale` names spec.replicas, status.replicas and the status' selector."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    scope: Literal["Cluster", "Namespaced"]
    columns: tuple[Column, ...]
    scale: tuple[str, str, str] | None = None

    @property
    def name(self) -> str:
        """The CRD's own name, such as ``tenants.loam.dev``."""
        return f"{self.plural}.{GROUP}"

    @property
    def qualified_kind(self) -> str:
        """How the API server names the kind in errors."""
        return f"{self.kind}.{GROUP}"


READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the object does its work.")
REASON = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready, or is not.")
AGE = Column("Age", ".metadata.creationTimestamp", "How long ago it was made.", type="date")


class Resource(Node):
    """A whole object. Each kind narrows `kind`, `spec` and `status` and brings its `definition`."""

    definition: ClassVar[Definition]

    api_version: Literal["loam.dev/v1alpha1"]
    kind: str
    metadata: ObjectMeta
    spec: Node
    status: Node

    @classmethod
    def read(cls, live: Mapping[str, Any]) -> Self:
        """An object as the cluster stores it; fields of a newer version of the API are passed over.

        Raises pydantic.ValidationError when it was stored under older, laxer rules.
        """
        return cls.model_validate(live, extra="ignore", by_alias=True, by_name=False)
