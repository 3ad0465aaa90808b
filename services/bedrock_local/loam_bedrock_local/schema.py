"""JSON schemas of tools' inputs, read once into what filling them needs to know."""

from dataclasses import dataclass
from typing import Any

from loam_bedrock_local.errors import ValidationError
from loam_bedrock_local.prompt import Json
from loam_bedrock_local.validation import conform

_SHAPE: Json = {
    "$ref": str,
    "anyOf": [dict],
    "oneOf": [dict],
    "allOf": [dict],
    "enum": [object],
    "required": [str],
    "properties": dict,
    "minimum": (int, float),
    "maximum": (int, float),
    "maxItems": int,
    "format": str,
}
# A schema may refer to itself; deeper than this nobody's question goes.
_MOST_REFERENCES = 3


@dataclass(frozen=True, slots=True)
class Field:
    """One value: its JSON type and what else it has to be. `members` are name, field and whether it is required."""

    kind: str
    options: tuple[Any, ...] = ()
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    most_items: int | None = None
    format: str = ""
    members: tuple[tuple[str, "Field", bool], ...] = ()
    items: "Field | None" = None


_ANYTHING = Field("string")
_NOTHING = Field("null")


def read(schema: Any) -> Field:
    """The field that `schema` describes.

    Raises:
        ValidationError: it is no JSON schema.
    """
    return _read(schema, schema, 0)


def _read(schema: Any, root: Json, references: int) -> Field:
    if not isinstance(schema, dict):
        return _ANYTHING
    conform(schema, _SHAPE, ".inputSchema.json")
    if "$ref" in schema:
        target = _target(schema["$ref"], root)
        return _NOTHING if references == _MOST_REFERENCES else _read(target, root, references + 1)
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        if option.get("type") != "null":
            return _read(option, root, references)
    required = set(schema.get("required", ()))
    return Field(
        kind=_kind(schema),
        options=(schema["const"],) if "const" in schema else tuple(schema.get("enum", ())),
        default=schema.get("default"),
        minimum=schema.get("minimum"),
        maximum=schema.get("maximum"),
        most_items=schema.get("maxItems"),
        format=schema.get("format", ""),
        members=tuple(
            (name, _read(member, root, references), name in required)
            for name, member in schema.get("properties", {}).items()
        ),
        items=_read(schema.get("items"), root, references),
    )


def _target(reference: str, root: Json) -> Any:
    target: Any = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        if not isinstance(target, dict) or part not in target:
            raise ValidationError(f"The reference {reference} of a tool's input schema leads nowhere.")
        target = target[part]
    return target


def _kind(schema: Json) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        return next((str(one) for one in kind if one != "null"), "null")
    return str(kind)
