"""From a pydantic model to the structural OpenAPI schema that a CRD needs.

Kubernetes takes a subset of OpenAPI v3 without references, unions or titles, and with every list's merge behaviour
said. A keyword that is not known here stops the generator, so that nothing is lost silently.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT = {
    "default", "description", "enum", "format", "maxItems", "maxLength", "maxProperties", "maximum", "minItems",
    "minLength", "minimum", "required", "type", "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
}  # fmt: skip
_DROPPED = {"additionalProperties", "properties", "items", "propertyNames", "title"}


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model's JSON form. Raises ValueError for what such a schema cannot say."""
    document = model.model_json_schema(by_alias=True)
    definitions = document.pop("$defs", {})
    return _convert(document, definitions)


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    node = _resolve(node, definitions)
    unknown = node.keys() - _KEPT - _DROPPED
    if unknown:
        raise ValueError(f"a structural schema cannot say {', '.join(sorted(unknown))}: {node}")
    schema = {key: value for key, value in node.items() if key in _KEPT}
    if "properties" in node:
        schema["properties"] = {name: _convert(child, definitions) for name, child in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), dict):
        schema["additionalProperties"] = _convert(node["additionalProperties"], definitions)
    if "items" in node:
        schema["items"] = _convert(node["items"], definitions)
        schema.setdefault("x-kubernetes-list-type", "atomic")
    return _with_default(schema)


def _resolve(node: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """The node with its reference, its `null` alternative and its constant replaced by what they stand for."""
    resolved = dict(node)
    if "$ref" in resolved:
        target = definitions[resolved.pop("$ref").removeprefix("#/$defs/")]
        return _resolve(target | resolved, definitions)
    if "anyOf" in resolved:
        alternatives = [choice for choice in resolved["anyOf"] if choice.get("type") != "null"]
        if len(alternatives) == 1:
            del resolved["anyOf"]
            return _resolve(alternatives[0] | resolved, definitions)
    if "const" in resolved:
        resolved["enum"] = [resolved.pop("const")]
    return resolved


def _with_default(schema: Schema) -> Schema:
    """The schema without a default that says nothing: null, an empty list or map, an empty text."""
    if "default" not in schema:
        return schema
    default = schema.pop("default")
    if default is not None and "properties" in schema:
        # Kubernetes checks CEL rules on a default before it fills in what lies below, so the whole is written.
        default = {name: child["default"] for name, child in schema["properties"].items() if "default" in child}
    return schema | ({"default": default} if default not in (None, [], {}, "") else {})
