"""Judges manifests where there is no API server, by the same rules and in the same words.

One difference is left: rules between fields are looked at once each field is right by itself, so a manifest with
several mistakes may need a second look.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError

from loam_operator.api.base import API_VERSION, Resource
from loam_operator.api.schema import structural
from loam_operator.api.v1alpha1 import KINDS
from loam_operator.api.wording import Problem, invalid, problems


class InvalidManifestError(Exception):
    """The manifest is refused; `problems` says why."""

    def __init__(self, about: str, found: Sequence[Problem]) -> None:
        self.problems = tuple(found)
        lines = [str(problem) for problem in found]
        listed = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n* {line}" for line in lines)
        super().__init__(f"{about} is invalid:{listed}")


def admit(manifest: Mapping[str, Any], previous: Resource | None = None) -> Resource:
    """The typed object of a manifest of one of Loam's kinds, defaults filled in.

    `previous` is the object that it replaces, if any. Raises InvalidManifestError.
    """
    kind = KINDS.get(str(manifest.get("kind")))
    if kind is None or manifest.get("apiVersion") != API_VERSION:
        raise InvalidManifestError(_about(manifest), [_unknown_kind(manifest)])
    try:
        resource = kind.model_validate(_without_nulls(manifest), by_alias=True, by_name=False)
    except ValidationError as error:
        found = [problem for detail in error.errors() for problem in problems(detail, _schema(kind))]
        raise InvalidManifestError(_about(manifest), found) from error
    if refused := list(_refused_changes(previous, resource)):
        raise InvalidManifestError(_about(manifest), refused)
    return resource


_schema = cache(structural)


def _without_nulls(value: Any) -> Any:
    """A field that is null counts as left out, as with the API server."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(child) for key, child in value.items() if child is not None}
    return [_without_nulls(child) for child in value] if isinstance(value, list) else value


def _about(manifest: Mapping[str, Any]) -> str:
    kind = KINDS.get(str(manifest.get("kind")))
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f'{kind.definition.qualified_kind if kind else manifest.get("kind")} "{name or ""}"'


def _unknown_kind(manifest: Mapping[str, Any]) -> Problem:
    named = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
    return Problem("kind", f"no matches for {named}; Loam's kinds are {', '.join(KINDS)} of {API_VERSION}")


def _refused_changes(previous: Resource | None, resource: Resource) -> Iterator[Problem]:
    """Broken transitions of the spec, where the previous object is of the same kind."""
    if not isinstance(previous, type(resource)):
        return
    for transition in resource.spec.transitions:
        if not transition.holds(resource.spec, previous.spec):
            yield Problem(f"spec.{transition.field}", invalid("", transition.message))
