"""Arguments for a tool, taken from what the user wrote: a JSON schema in, a value that satisfies it out."""

import re
from collections.abc import Callable
from typing import Any

from loam_bedrock_local.prompt import Json
from loam_bedrock_local.schema import Field, read
from loam_bedrock_local.words import terms

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905 - reads better than a list
_ISO_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_LONG_DATE = re.compile(r"\b(?P<day>\d{1,2})(?:st|nd|rd|th)?\s+(?P<month>[A-Z][a-z]{2})[a-z]*\.?,?\s+(?P<year>\d{4})\b")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
_URL = re.compile(r"https?://[^\s\"'<>)]+")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w-])")
_QUOTED = re.compile(r"[\"\u201c`]([^\"\u201d`]+)[\"\u201d`]")
_NAMED = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][\w'-]*(?:\s+(?:of\s+)?[A-Z][\w'-]*)*")
_ID = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{3,}\b")
_WHOLE = frozenset(
    {
        "query",
        "question",
        "text",
        "input",
        "prompt",
        "message",
        "content",
        "topic",
        "q",
        "search",
        "expression",
        "answer",
    }
)
# What stands before a value of a property of this name.
_CUES = {
    "origin": "from", "source": "from", "from": "from", "start": "from", "departure": "from",
    "destination": "to", "to": "to", "target": "to", "recipient": "to", "arrival": "to", "end": "to",
    "city": "in", "location": "in", "country": "in", "place": "in", "region": "in",
}  # fmt: skip


class Filler:
    """Fills schemas from one text; a value that was used once is not used again while there are others."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._used: set[str] = set()

    def fill(self, schema: Json) -> Json:
        """An object for the schema of a tool's input.

        Raises:
            ValidationError: it is no JSON schema.
        """
        return self._object(read(schema))

    def _object(self, field: Field) -> Json:
        values = {name: self._value(name, member, required=required) for name, member, required in field.members}
        required_names = {name for name, _, required in field.members if required}
        return {name: value for name, value in values.items() if value is not None or name in required_names}

    def _value(self, name: str, field: Field, *, required: bool) -> Any:
        if field.options:
            return self._choice(field, required=required)
        if field.kind == "object":
            return self._object(field) or ({} if required else None)
        fillers: dict[str, Callable[..., Any]] = {
            "string": self._string,
            "integer": self._number,
            "number": self._number,
            "boolean": self._boolean,
            "array": self._array,
        }
        filler = fillers.get(field.kind)
        return filler(name, field, required=required) if filler else None

    def _choice(self, field: Field, *, required: bool) -> Any:
        words = set(terms(self._text))
        for option in field.options:
            if words & set(terms(str(option).replace("_", " "))):
                return option
        fallback = field.options[0] if field.default is None else field.default
        return fallback if required or len(field.options) == 1 else None

    def _string(self, name: str, field: Field, *, required: bool) -> str | None:
        if field.format in ("date", "date-time") or "date" in name.lower():
            found = self._date()
        elif name.lower() in _WHOLE:
            return self._text
        else:
            found = self._labelled(name) or self._first(self._candidates(name))
        if found is None and required:
            return str(field.default or self._remainder())
        return found

    def _candidates(self, name: str) -> list[str]:
        """Values in the text that a string property of this name may mean, the likeliest first."""
        lower = name.lower()
        patterns = [_QUOTED, _NAMED]
        if "mail" in lower:
            patterns = [_EMAIL]
        elif lower in ("url", "uri", "link", "href"):
            patterns = [_URL]
        elif lower.endswith("id"):
            patterns = [_ID, _NUMBER, *patterns]
        cue = _CUES.get(lower.split("_")[-1])
        after_cue = (
            re.findall(rf"(?i:\b{cue})\s+({_NAMED.pattern[len('(?<![.!?] )(?<!^)') :]})", self._text) if cue else []
        )
        return after_cue + [match for pattern in patterns for match in pattern.findall(self._text)]

    def _labelled(self, name: str) -> str | None:
        """`name: value`, `name is value` or `name = value`."""
        match = re.search(rf"\b{_label(name)}\s*(?:[:=]|\bis\b)\s*[\"']?([^\"',;.\n?]+)", self._text, re.IGNORECASE)
        return match[1].strip() if match else None

    def _date(self) -> str | None:
        if iso := _ISO_DATE.search(self._text):
            return iso[0]
        written = _LONG_DATE.search(self._text)
        if not written or written["month"].lower() not in _MONTHS:
            return None
        return f"{written['year']}-{_MONTHS.index(written['month'].lower()) + 1:02}-{int(written['day']):02}"

    def _number(self, name: str, field: Field, *, required: bool) -> float | None:
        text = _LONG_DATE.sub("", _ISO_DATE.sub("", self._text))
        label, number = _label(name), r"-?\d+(?:\.\d+)?"
        near = re.search(rf"(?i)\b{label}\b\D{{0,20}}?({number})|({number})\s+{label}\b", text)
        found = near[1] or near[2] if near else self._first(_NUMBER.findall(text))
        if found is None and not required:
            return None
        if found is None:
            found = next((str(known) for known in (field.default, field.minimum) if known is not None), "0")
        return _bounded(found, field)

    def _boolean(self, name: str, field: Field, *, required: bool) -> bool | None:
        if match := re.search(
            rf"(\b(?:no|not|without|don't)\s+(?:\w+\s+)?)?\b{_label(name)}\b", self._text, re.IGNORECASE
        ):
            return match[1] is None
        return bool(field.default) if required else None

    def _array(self, name: str, field: Field, *, required: bool) -> list[Any] | None:
        items = field.items or Field("string")
        match items.kind:
            case "integer" | "number":
                values: list[Any] = [_bounded(number, items) for number in _NUMBER.findall(self._text)]
            case "string" if not items.options:
                values = self._candidates(name) or ([self._remainder()] if required else [])
            case _:
                value = self._value(name, items, required=required)
                values = [] if value is None else [value]
        return values[: field.most_items] or ([] if required else None)

    def _first(self, candidates: list[str]) -> str | None:
        """The first one not used yet; when all are, none."""
        for candidate in candidates:
            if candidate not in self._used:
                self._used.add(candidate)
                return candidate
        return None

    def _remainder(self) -> str:
        """What is left to say when nothing stands out: the text without its closing mark."""
        return self._text.rstrip(" ?!.")


def _label(name: str) -> str:
    """A pattern for a property's name as people write it."""
    return re.escape(name).replace("_", "[ _]")


def _bounded(number: str, field: Field) -> float:
    """A number of the field's type within its bounds."""
    value: float = int(float(number)) if field.kind == "integer" else float(number)
    value = value if field.minimum is None else max(value, field.minimum)
    return value if field.maximum is None else min(value, field.maximum)
