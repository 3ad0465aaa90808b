"""From a template and values to messages: literal text and values put one after the other. Pure.

A value is put in once and never read as a template, so nothing that a caller sends can become one.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from loam_shared.contracts.templates import PromptTemplate, TemplateTurn
from loam_shared.errors import InvalidRequestError
from loam_shared.templates import faults, pieces

LONGEST_PROMPT = 10 * 2**20
"""Characters of all messages together: a template may put the same long value into many places."""


def render(template: PromptTemplate, values: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages of `template` with `values` put in.

    Raises InvalidRequestError that names a variable which is unknown, missing, or not as its schema wants it.
    """
    _check(template, values)
    texts = {name: _text(values.get(name, schema.default)) for name, schema in template.variables.properties.items()}
    left = LONGEST_PROMPT
    messages = []
    for turn in template.messages:
        content, left = _filled(turn, texts, left)
        messages.append({"role": turn.role, "content": content})
    return messages


def _check(template: PromptTemplate, values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in template.variables.properties:
            raise _wrong(f"variables.{name}", f'the template {template.label} has no variable "{name}"')
    for name in template.variables.required:
        if name not in values:
            raise _wrong(f"variables.{name}", f'the template {template.label} needs the variable "{name}"')
    for where, why in faults(template, values):
        raise _wrong(where, why)


def _wrong(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param)


def _text(value: Any) -> str:
    """Texts as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise InvalidRequestError(f"variables: cannot be written as JSON: {error}", param="variables") from error


def _filled(turn: TemplateTurn, texts: Mapping[str, str], left: int) -> tuple[str, int]:
    parts: list[str] = []
    for literal, name in pieces(turn.content):
        put_in = texts[name] if name is not None else ""
        parts += (literal, put_in)
        left -= len(literal) + len(put_in)
        if left < 0:
            raise InvalidRequestError(f"variables: the prompt gets longer than {LONGEST_PROMPT} characters")
    return "".join(parts), left
