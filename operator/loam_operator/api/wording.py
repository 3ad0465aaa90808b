"""Pydantic's errors in the words that a Kubernetes API server has for the same mistakes."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

_SENTENCES = {
    "missing": "Required value",
    "extra_forbidden": 'unknown field "{path}"',
    "greater_than_equal": "Invalid value: {value}: {path} in body should be greater than or equal to {ge}",
    "less_than_equal": "Invalid value: {value}: {path} in body should be less than or equal to {le}",
    "string_too_short": "Invalid value: {value}: {path} in body should be at least {min_length} chars long",
    "string_too_long": "Too long: may not be more than {max_length} bytes",
    "too_short": "Invalid value: {actual_length}: {path} in body should have at least {min_length} items",
    "too_long": "Too many: {actual_length}: must have at most {max_length} items",
}
_WANTED_TYPES = {
    "bool_type": "boolean",
    "dict_type": "object",
    "int_from_float": "integer",
    "int_or_string_type": "integer,string",
    "int_type": "integer",
    "list_type": "array",
    "model_type": "object",
    "string_type": "string",
}
_JSON_TYPES = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"))


@dataclass(frozen=True)
class Problem:
    """Something wrong with one field: its path, such as ``spec.sources[0].s3``, and a sentence with the mend."""

    field: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.field}: {self.sentence}"


def problems(detail: ErrorDetails, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """One error of pydantic; `schema` is the kind's structural schema. Several broken rules give several problems."""
    kind, path, value = detail["type"], _path(detail["loc"]), detail["input"]
    context = detail.get("ctx", {})
    if kind == "rules":
        path = _path_with_keys(detail["loc"], schema)
        for field, message in context["broken"]:
            yield Problem(".".join(filter(None, (path, field))), invalid("" if field else value, message))
    elif kind == "duplicate":
        yield Problem(f"{path}[{context['index']}]", f"Duplicate value: {_shown(context['value'])}")
    elif kind == "literal_error":
        supported = ", ".join(re.findall(r"'[^']*'", context["expected"])).replace("'", '"')
        yield Problem(path, f"Unsupported value: {_shown(value)}: supported values: {supported}")
    elif kind in _WANTED_TYPES:
        found, wanted = _json_type(value), _WANTED_TYPES[kind]
        yield Problem(path, f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"')
    elif kind in _SENTENCES:
        yield Problem(path, _SENTENCES[kind].format(path=path, value=_shown(value), **context))
    else:
        yield Problem(path, invalid(value, detail["msg"]))


def invalid(value: Any, message: str) -> str:
    """The sentence for a broken rule; as the API server does, it shows the value of a plain field only."""
    shown = f"{_shown(value)}: " if value != "" and not isinstance(value, Mapping | list) else ""
    return f"Invalid value: {shown}{message}"


def _path(location: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


def _path_with_keys(location: Sequence[str | int], schema: Mapping[str, Any]) -> str:
    """The path as rules have it, where the keys of a map stand in brackets: ``spec.quota[requests.cpu]``."""
    path = ""
    for step in location:
        if step in schema.get("properties", {}):
            path, schema = f"{path}.{step}", schema["properties"][step]
        else:
            path, schema = f"{path}[{step}]", schema.get("items") or schema.get("additionalProperties") or {}
    return path.removeprefix(".")


def _json_type(value: Any) -> str:
    return next((name for kind, name in _JSON_TYPES if isinstance(value, kind)), "object")


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))
