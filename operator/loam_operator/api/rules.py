"""Rules that a schema cannot say, each written twice: in CEL for the API server, in Python for everything else.

Both ways refuse with the same sentence. A rule on a type goes into `Annotated`; a rule between fields goes into the
`rules` of its model (see `base.Node`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"
T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """Something that must hold: `cel` sees the value as `self`, `holds` as its argument.

    `message` completes "<path of the field> …" with the mend. `field` is, for a rule of a model, the JSON name of the
    field that it is about.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""

    def to_crd(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | ({"fieldPath": f".{self.field}"} if self.field else {})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(lambda value: obey(value, (self,)), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        return json_schema | {VALIDATIONS: [*json_schema.get(VALIDATIONS, ()), self.to_crd()]}


@dataclass(frozen=True)
class Transition:
    """Something that must hold between an object and what it was before; `cel` sees the latter as `oldSelf`."""

    cel: str
    message: str
    holds: Callable[[Any, Any], bool]
    field: str

    def to_crd(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        return {"rule": self.cel, "message": self.message, "fieldPath": f".{self.field}"}


@dataclass(frozen=True)
class Unique:
    """No two items of a list are the same, or have the same attribute `key`; server-side apply merges them by it."""

    key: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if not self.key:
            return handler(schema) | {"x-kubernetes-list-type": "set"}
        keys = [to_camel(self.key)]
        return handler(schema) | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}

    def _check(self, items: list[Any]) -> list[Any]:
        values = [getattr(item, self.key) if self.key else item for item in items]
        for index, value in enumerate(values):
            if value in values[:index]:
                shown = {to_camel(self.key): value} if self.key else value
                raise PydanticCustomError("duplicate", "Duplicate value", {"index": index, "value": shown})
        return items


def matching(pattern: str, message: str) -> Rule:
    """A string must match `pattern` (which brings its own ``^`` and ``$``), in the syntax that RE2 and Python share.

    A rule rather than the schema's `pattern`: the API server would print the bare expression beside the sentence.
    """
    compiled = re.compile(pattern, re.ASCII)
    return Rule(f"self.matches(r'{pattern}')", message, lambda text: compiled.fullmatch(text) is not None)


def obey(value: T, rules: tuple[Rule, ...]) -> T:
    """The value, when all rules hold for it; a PydanticCustomError of type ``rules`` naming every broken one."""
    broken = [(rule.field, rule.message) for rule in rules if not rule.holds(value)]
    if broken:
        raise PydanticCustomError("rules", "; ".join(message for _, message in broken), {"broken": broken})
    return value
