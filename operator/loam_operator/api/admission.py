"""Judges manifests where there is no API server, in the API server's words."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from loam_operator.api.base import API_VERSION, Resource
from loam_operator.api.v1alpha1 import KINDS


@dataclass(frozen=True)
class Problem:
    """Something wrong with one field: its path, such as ``spec.sources[0].s3``, and a sentence with the mend."""

    field: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.field}: {self.sentence}"


class InvalidManifestError(Exception):
    """The manifest is refused; `problems` says why."""

    def __init__(self, about: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        listed = lines[0] if len(lines) == 1 else "\n".join(["", *(f"* {line}" for line in lines)])
        super().__init__(f"{about} is invalid: {listed}")


def admit(manifest: Mapping[str, Any], previous: Resource | None = None) -> Resource:
    """The typed object of a manifest of one of Loam's kinds, defaults filled in.

    `previous` is the object that it replaces, if any. Raises InvalidManifestError.
    """
    kind = KINDS.get(str(manifest.get("kind")))
    if kind is None or manifest.get("apiVersion") != API_VERSION:
        raise InvalidManifestError(_about(manifest), [_unknown_kind(manifest)])
    try:
        resource = kind.model_validate(manifest, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = [problem for detail in error.errors() for problem in _problems(detail)]
        raise InvalidManifestError(_about(manifest), problems) from error
    if problems := list(_changes_refused(previous, resource)):
        raise InvalidManifestError(_about(manifest), problems)
    return resource


def _about(manifest: Mapping[str, Any]) -> str:
    kind = KINDS.get(str(manifest.get("kind")))
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f'{kind.definition.qualified_kind if kind else manifest.get("kind")} "{name}"'


def _unknown_kind(manifest: Mapping[str, Any]) -> Problem:
    named = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
    return Problem("kind", f"no matches for {named}; Loam's kinds are {', '.join(KINDS)} of {API_VERSION}")


def _changes_refused(previous: Resource | None, resource: Resource) -> Iterator[Problem]:
    """Broken transitions of the spec, where the previous object is of the same kind."""
    if not isinstance(previous, type(resource)):
        return
    old, new = previous.spec, resource.spec
    for transition in new.transitions:
        if not transition.holds(new, old):
            yield Problem(f"spec.{transition.field}", _invalid(getattr(new, transition.field), transition.message))


def _problems(detail: ErrorDetails) -> Iterator[Problem]:
    """One error of pydantic in the words that the API server has for it."""
    path, value, context = _path(detail["loc"]), detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "rules":
            for field, message in context["broken"]:
                yield Problem(".".join(filter(None, (path, field))), _invalid(value, message))
        case "duplicate":
            yield Problem(f"{path}[{context['index']}]", f"Duplicate value: {_shown(context['value'])}")
        case "missing":
            yield Problem(path, "Required value")
        case "extra_forbidden":
            yield Problem(path, "unknown field")
        case "literal_error":
            yield Problem(path, f"Unsupported value: {_shown(value)}: supported values: {context['expected']}")
        case _:
            yield Problem(path, _invalid(value, detail["msg"]))


def _path(location: Sequence[str | int]) -> str:
    """The field as the API server writes it: ``spec.sources[0].s3``."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")


def _invalid(value: Any, message: str) -> str:
    return f"Invalid value: {_shown(value)}: {message}"


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
