"""Reading prompt templates: from a file's text to a template whose every hole has a variable, or one sentence why not.

A template is text with holes and nothing else: no expressions, conditions, loops or includes. What fills a hole is
never looked at again.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import orjson
import yaml
from pydantic import ValidationError

from loam_shared.contracts.templates import LONGEST_FILE, PromptTemplate, Variable

_HOLE = re.compile(r"\{\{[ \t]*([A-Za-z][A-Za-z0-9_]{0,62})[ \t]*\}\}")
_DEEPEST = 8


class TemplateError(Exception):
    """Why a file is no template, in one sentence."""


def parse(text: str) -> PromptTemplate:
    """The template in a file. Raises TemplateError."""
    if len(text) > LONGEST_FILE:
        raise TemplateError(f"it has more than {LONGEST_FILE} characters")
    document = _document(text)
    try:
        template = PromptTemplate.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TemplateError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    check(template)
    return template


def check(template: PromptTemplate) -> None:
    """Raises TemplateError when a hole has no variable, a variable no hole, or a call could leave a hole empty.

    Also for what cannot be kept: numbers beyond 64 bits, and the character U+0000.
    """
    _check_storable(template)
    filled = {name for turn in template.messages for name in holes(turn.content)}
    declared = template.variables.properties
    _refuse(filled - declared.keys(), "is used in messages, but not declared in variables.properties")
    _refuse(declared.keys() - filled, "is declared in variables.properties, but not used in messages")
    _refuse(set(template.variables.required) - declared.keys(), "is required, but not declared in variables.properties")
    optional = declared.keys() - set(template.variables.required)
    _refuse({name for name in optional if declared[name].default is None}, "is not required, so it needs a default")
    _check_depth(list(declared.values()))
    given = {name: schema.default for name, schema in declared.items() if schema.default is not None}
    if broken := next(faults(template, given), None):
        raise TemplateError("the default of " + broken[1])
    answer = template.response_format
    if answer is not None and (answer.type == "json_schema") != (answer.json_schema is not None):
        raise TemplateError("responseFormat: json_schema goes with the type json_schema, and that type with it")


def faults(template: PromptTemplate, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What in `values` breaks its variable's schema: where (``variables.fields.0.name``), and a sentence.

    The sentence names the rule and not the value, which may be long, or nobody else's business.
    """
    for name in values.keys() & template.variables.properties.keys():
        schema = template.variables.properties[name].model_dump(by_alias=True, exclude_none=True, mode="json")
        for error in jsonschema.Draft202012Validator(schema).iter_errors(values[name]):
            where = ".".join(["variables", name, *map(str, error.absolute_path)])
            rule = error.validator_value if error.validator != "additionalProperties" else "nothing else"
            yield where, f"{where} breaks its schema: {error.validator} {rule}"


def pieces(content: str) -> Iterator[tuple[str, str | None]]:
    """A content taken apart: each piece is literal text and the name of the hole after it, None at the end.

    Raises TemplateError for two opening braces that begin no hole.
    """
    end = 0
    for match in _HOLE.finditer(content):
        yield _literal(content[end : match.start()]), match[1]
        end = match.end()
    yield _literal(content[end:]), None


def holes(content: str) -> list[str]:
    """The names of the variables in `content`. Raises TemplateError as `pieces` does."""
    return [name for _, name in pieces(content) if name is not None]


def _check_storable(template: PromptTemplate) -> None:
    try:
        written = orjson.dumps(template.model_dump(by_alias=True))
    except orjson.JSONEncodeError as error:
        raise TemplateError(f"it cannot be written as JSON: {error}") from error
    if b"\\u0000" in written.replace(b"\\\\", b""):
        raise TemplateError("it has the character U+0000, which cannot be kept")


def _literal(text: str) -> str:
    if "{{" in text:
        begin = text.index("{{")
        shown = text[begin : begin + 24].partition("\n")[0]
        raise TemplateError(f'messages: "{shown}" is no variable; write {{{{ name }}}}, with a name and nothing else')
    return text


def _refuse(names: set[str], why: str) -> None:
    if names:
        raise TemplateError(f'the variable "{min(names)}" {why}')


def _check_depth(level: list[Variable]) -> None:
    for _ in range(_DEEPEST):
        level = [
            inner
            for schema in level
            for inner in (*(schema.properties or {}).values(), *((schema.items,) if schema.items else ()))
        ]
        if not level:
            return
    raise TemplateError(f"variables: schemas within schemas, more than {_DEEPEST} deep")


class _Loader(yaml.SafeLoader):
    """Plain YAML without aliases: a few lines of them stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As the base does, but for aliases."""
        if self.check_event(yaml.events.AliasEvent):
            raise TemplateError("it has YAML aliases (*name), which templates do not take")
        return super().compose_node(parent, index)


def _document(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - the loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise TemplateError(f"it is no YAML: {error.problem} in line {line}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TemplateError(f"it is no YAML: {type(error).__name__}") from error
