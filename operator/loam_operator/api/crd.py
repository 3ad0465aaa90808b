"""CustomResourceDefinitions from the API's kinds."""

from typing import Any

from loam_operator.api.base import GROUP, VERSION, Column, Definition, Resource
from loam_operator.api.schema import structural

_GENERAL = {
    "apiVersion": {
        "type": "string",
        "description": f"The version of the API that this manifest is written for: {GROUP}/{VERSION}.",
    },
    "kind": {"type": "string", "description": "The kind of the object."},
    # The name is declared only so that rules may point at it.
    "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
}


def crd(kind: type[Resource]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    definition = kind.definition
    schema = structural(kind)
    schema["properties"] |= _GENERAL
    schema["required"] = ["spec"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": definition.name,
            "labels": {"app.kubernetes.io/name": "loam", "app.kubernetes.io/part-of": "loam"},
        },
        "spec": {
            "group": GROUP,
            "names": _names(definition),
            "scope": definition.scope,
            "versions": [_version(definition, schema)],
        },
    }


def _names(definition: Definition) -> dict[str, Any]:
    return {
        "kind": definition.kind,
        "listKind": f"{definition.kind}List",
        "plural": definition.plural,
        "singular": definition.kind.lower(),
        "shortNames": list(definition.short_names),
        "categories": ["loam"],
    }


def _version(definition: Definition, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": _subresources(definition),
        "additionalPrinterColumns": [_column(column) for column in definition.columns],
    }


def _subresources(definition: Definition) -> dict[str, Any]:
    if definition.scale is None:
        return {"status": {}}
    paths = zip(("specReplicasPath", "statusReplicasPath", "labelSelectorPath"), definition.scale, strict=True)
    return {"status": {}, "scale": dict(paths)}


def _column(column: Column) -> dict[str, Any]:
    shown = {"name": column.name, "type": column.type, "jsonPath": column.path, "description": column.description}
    return shown | ({"priority": column.priority} if column.priority else {})
