"""Arguments for a tool, taken from what the user wrote: a JSON schema in, a value that satisfies it out."""

import re
from collections.abc import Callable
from typing import Any

from loam_bedrock_local.prompt import Json
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
        """An object for the schema of a tool's input."""
        return self._object(schema, schema)

    def _object(self, schema: Json, root: Json) -> Json:
        required = set(schema.get("required") or ())
        filled = {}
        for name, property_schema in (schema.get("properties") or {}).items():
            value = self._value(name, property_schema, root, required=name in required)
            if value is not None or name in required:
                filled[name] = value
        return filled

    def _value(self, name: str, schema: Json, root: Json, *, required: bool) -> Any:
        schema = _resolved(schema, root)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(schema["enum"], required=required, default=schema.get("default"))
        kinds: dict[str, Callable[[], Any]] = {
            "string": lambda: self._string(name, schema, required=required),
            "integer": lambda: self._number(name, schema, int, required=required),
            "number": lambda: self._number(name, schema, float, required=required),
            "boolean": lambda: self._boolean(name, schema, required=required),
            "array": lambda: self._array(name, schema, root, required=required),
            "object": lambda: self._object(schema, root) or ({} if required else None),
        }
        return kinds.get(_type(schema), lambda: None)()

    def _choice(self, options: list[Any], *, required: bool, default: Any) -> Any:
        words = set(terms(self._text))
        named = [option for option in options if words & set(terms(str(option).replace("_", " ")))]
        if named:
            return named[0]
        return (options[0] if default is None else default) if required else None

    def _string(self, name: str, schema: Json, *, required: bool) -> str | None:
        if schema.get("format") in ("date", "date-time") or "date" in name.lower():
            found = self._date()
        elif name.lower() in _WHOLE:
            return self._text
        else:
            found = self._labelled(name) or self._first(self._candidates(name))
        if found is None and required:
            return str(schema.get("default") or self._remainder())
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
        label = re.escape(name).replace("_", "[ _]")
        match = re.search(rf"\b{label}\s*(?:[:=]|\bis\b)\s*[\"']?([^\"',;.\n?]+)", self._text, re.IGNORECASE)
        return match[1].strip() if match else None

    def _date(self) -> str | None:
        if iso := _ISO_DATE.search(self._text):
            return iso[0]
        written = _LONG_DATE.search(self._text)
        if not written or written["month"].lower() not in _MONTHS:
            return None
        return f"{written['year']}-{_MONTHS.index(written['month'].lower()) + 1:02}-{int(written['day']):02}"

    def _number(self, name: str, schema: Json, kind: type[int] | type[float], *, required: bool) -> float | int | None:
        text = _LONG_DATE.sub("", _ISO_DATE.sub("", self._text))
        label, number = re.escape(name).replace("_", "[ _]"), r"-?\d+(?:\.\d+)?"
        near = re.search(rf"(?i)\b{label}\b\D{{0,20}}?({number})|({number})\s+{label}\b", text)
        found = near[1] or near[2] if near else self._first(_NUMBER.findall(text))
        if found is None:
            fallback: float | None = schema.get("default", schema.get("minimum", 0))
            return fallback if required else None
        value: float = kind(float(found))
        lowest: float = schema.get("minimum", value)
        highest: float = schema.get("maximum", value)
        return min(max(value, lowest), highest)

    def _boolean(self, name: str, schema: Json, *, required: bool) -> bool | None:
        label = re.escape(name).replace("_", "[ _]")
        if match := re.search(rf"(\b(?:no|not|without|don't)\s+(?:\w+\s+)?)?\b{label}\b", self._text, re.IGNORECASE):
            return match[1] is None
        return bool(schema.get("default", False)) if required else None

    def _array(self, name: str, schema: Json, root: Json, *, required: bool) -> list[Any] | None:
        items = _resolved(schema.get("items") or {"type": "string"}, root)
        if _type(items) in ("integer", "number"):
            kind = int if _type(items) == "integer" else float
            values: list[Any] = [kind(float(number)) for number in _NUMBER.findall(self._text)]
        elif _type(items) == "object":
            values = [self._object(items, root)] if required else []
        else:
            values = self._candidates(name) or ([self._remainder()] if required else [])
        return values[: schema.get("maxItems")] or ([] if required else None)

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


def _resolved(schema: Json, root: Json) -> Json:
    """`schema` with its reference followed, and of alternatives the first that is not null."""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target.get(part, {})
        return _resolved(target, root)
    for union in ("anyOf", "oneOf", "allOf"):
        for option in schema.get(union) or ():
            if option.get("type") != "null":
                return _resolved(option, root)
    return schema


def _type(schema: Json) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return next((one for one in kind if one != "null"), "string") if isinstance(kind, list) else str(kind)
