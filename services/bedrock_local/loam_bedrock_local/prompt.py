"""What a Converse request says: the question, the sources to answer it from, the tools, and how to cite."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from loam_bedrock_local.errors import ValidationError
from loam_bedrock_local.words import sentences

Json = dict[str, Any]

_FENCE = re.compile(
    r"<(?P<tag>source|document|doc|passage|context|chunk|excerpt|search_result)\b(?P<attributes>[^>]*)>(?P<text>.*?)</(?P=tag)\s*>",
    re.DOTALL | re.IGNORECASE,
)
_ID = re.compile(r"""\b(?:id|index|number|n)\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_QUESTION_LABEL = re.compile(r"(?:^|\n)\s*(?:user'?s? )?(?:question|query)\s*:\s*(.+)\s*\Z", re.IGNORECASE | re.DOTALL)
_CONTEXT_LABEL = re.compile(r"(?:^|\n)\s*(?:context|sources|documents|passages|text|article)\s*:\s*", re.IGNORECASE)
_EARLIER_LABEL = re.compile(r"(?:^|\n)\s*(?:earlier|previous) questions?\s*:\s*(.+)", re.IGNORECASE)
_DECLINES = re.compile(r"\bbegin with \[0\]", re.IGNORECASE)
_SEARCHES = re.compile(
    r"\bsearch(?:es| queries)\b.{0,200}?\bone (?:to|per|on) (?:a|each) line\b", re.IGNORECASE | re.DOTALL
)
_CITATION = re.compile(
    r"([\[(【])\s*(?:\d{1,3}|n|i|id|#|number|source(?:[ _-]?(?:id|number))?)\s*([\])】])", re.IGNORECASE
)
# A sentence that tells the model what to do says nothing to answer with.
_INSTRUCTION = re.compile(
    r"\b(?:you|your)\b|^(?:answer|use|never|always|do|don't|if|be|cite|reply|respond|please|only|keep|generate|write|say)\b",
    re.IGNORECASE,
)
_READABLE = {"txt", "md", "html", "csv"}


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that answers may be taken from. `id` is None where the prompt gives none."""

    id: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool on offer, with the JSON schema of its input."""

    name: str
    description: str
    schema: Json


@dataclass(frozen=True)
class Prompt:
    """A view on the body of a Converse request; nothing is parsed before it is asked for."""

    body: Json

    @cached_property
    def messages(self) -> list[Json]:
        """The conversation."""
        messages: list[Json] = self.body["messages"]
        return messages

    @cached_property
    def system(self) -> str:
        """All system text."""
        return "\n".join(block["text"] for block in self.body.get("system") or () if "text" in block)

    @cached_property
    def question(self) -> str:
        """What the last user text asks, without the fenced sources and labelled context around it."""
        return _split_question(self._user_texts[-1])[1] if self._user_texts else ""

    @cached_property
    def earlier_question(self) -> str:
        """The user's question before the last one, which a short follow-up leans on."""
        if self._user_texts and (told := _EARLIER_LABEL.findall(_FENCE.sub("\n", self._user_texts[-1]))):
            return str(told[-1]).strip()
        return _split_question(self._user_texts[-2])[1] if len(self._user_texts) > 1 else ""

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The passages to answer from: what tools have just answered, else what is fenced or attached anywhere."""
        if self.tool_results:
            return tuple(source for text in self.tool_results for source in _passages(text))
        fenced = [source for text in (self.system, *self._user_texts) for source in _fenced(text)]
        if any(source.id for source in fenced):
            # What has no number beside those that have one cannot be cited: earlier answers, the question itself.
            fenced = [source for source in fenced if source.id]
        return (*fenced, *self._attached())

    @cached_property
    def remarks(self) -> tuple[Source, ...]:
        """What is said outside of sources: facts in the system prompt, context before a question, earlier turns."""
        system = " ".join(s.text for s in sentences(_FENCE.sub("\n", self.system)) if not _INSTRUCTION.search(s.text))
        earlier = (_FENCE.sub("\n", text) for text in self._user_texts[:-1])
        context = (_EARLIER_LABEL.sub("\n", _split_question(text)[0]) for text in self._user_texts[-1:])
        return tuple(Source(None, text) for text in (system, *earlier, *context) if text)

    @cached_property
    def citation(self) -> tuple[str, str] | None:
        """The brackets that citations are asked for in, or None when none are."""
        for text in (self.system, *self._user_texts[-1:]):
            if match := _CITATION.search(_FENCE.sub("", text)):
                return match[1], match[2]
        asked = re.search(r"\bcit(e|ation|ations|ing)\b", self.system, re.IGNORECASE)
        return ("[", "]") if asked else None

    @property
    def declines_by_number(self) -> bool:
        """Whether an answer that is not in the sources has to begin with ``[0]``."""
        return bool(_DECLINES.search(self.system))

    @property
    def wants_searches(self) -> bool:
        """Whether searches for the question are asked for, one to a line, and no answer."""
        return bool(_SEARCHES.search(self.system))

    def named(self, name: str) -> str:
        """The text of the fence that has this name."""
        found = (match for text in self._user_texts for match in _FENCE.finditer(text))
        return next((match["text"].strip() for match in found if f'name="{name}"' in match["attributes"]), "")

    @cached_property
    def told(self) -> str:
        """What arguments may be taken from: the question, and what tools have answered to it."""
        return "\n".join([self.question, *self.tool_results])

    @property
    def thinks(self) -> bool:
        """Whether the model is asked to reason first."""
        thinking = (self.body.get("additionalModelRequestFields") or {}).get("thinking") or {}
        return thinking.get("type") in ("enabled", "adaptive")

    @property
    def output_schema(self) -> Json | None:
        """The JSON schema that the text of the answer has to follow, if any."""
        text_format = (self.body.get("outputConfig") or {}).get("textFormat")
        if not text_format:
            return None
        try:
            schema: Json = orjson.loads(text_format["structure"]["jsonSchema"]["schema"])
        except orjson.JSONDecodeError as error:
            raise ValidationError(f"outputConfig.textFormat: the schema is no JSON: {error}") from error
        return schema

    @property
    def max_tokens(self) -> int | None:
        """The most tokens that the answer may have."""
        limit: int | None = (self.body.get("inferenceConfig") or {}).get("maxTokens")
        return limit

    @property
    def stop_sequences(self) -> list[str]:
        """Strings before which the answer ends."""
        return [stop for stop in (self.body.get("inferenceConfig") or {}).get("stopSequences") or () if stop]

    @cached_property
    def tools(self) -> tuple[Tool, ...]:
        """The tools on offer."""
        specs = [
            tool["toolSpec"] for tool in (self.body.get("toolConfig") or {}).get("tools", ()) if "toolSpec" in tool
        ]
        return tuple(
            Tool(spec["name"], spec.get("description") or "", (spec.get("inputSchema") or {}).get("json") or {})
            for spec in specs
        )

    @cached_property
    def tool_choice(self) -> Json:
        """``{"auto": {}}``, ``{"any": {}}`` or ``{"tool": {"name": …}}``."""
        choice: Json = (self.body.get("toolConfig") or {}).get("toolChoice") or {"auto": {}}
        return choice

    @cached_property
    def tools_called(self) -> frozenset[str]:
        """Names of the tools that were called since the user last spoke."""
        names: set[str] = set()
        for message in reversed(self.messages):
            blocks = message["content"]
            if message["role"] == "user" and not any("toolResult" in block for block in blocks):
                break
            names.update(block["toolUse"]["name"] for block in blocks if "toolUse" in block)
        return frozenset(names)

    @cached_property
    def tool_results(self) -> tuple[str, ...]:
        """What the tools answered in the last message, as text."""
        last = self.messages[-1]["content"]
        return tuple(text for block in last if "toolResult" in block for text in _result_texts(block["toolResult"]))

    @cached_property
    def _user_texts(self) -> list[str]:
        texts = ["\n\n".join(_texts(message["content"])) for message in self.messages if message["role"] == "user"]
        return [text for text in texts if text.strip()]

    def _attached(self) -> Iterator[Source]:
        for block in (block for message in self.messages for block in message["content"]):
            if "document" in block:
                yield Source(block["document"].get("name"), document_text(block["document"]))
            elif "searchResult" in block:
                yield Source(block["searchResult"].get("source"), "\n".join(_texts(block["searchResult"]["content"])))
            elif "toolResult" in block:
                yield from (source for text in _result_texts(block["toolResult"]) for source in _passages(text))


def texts_of(body: Json) -> Iterator[str]:
    """Every text of a request: the system's, the turns', and what tools answered."""
    yield from (block["text"] for block in body.get("system") or () if "text" in block)
    for message in body["messages"]:
        yield from _texts(message["content"])
        yield from (
            t for block in message["content"] if "toolResult" in block for t in _result_texts(block["toolResult"])
        )


def document_text(document: Json) -> str:
    """The text of a document block, where its format is a text format; else nothing."""
    source = document.get("source") or {}
    if "text" in source:
        return str(source["text"])
    if "bytes" not in source or document.get("format") not in _READABLE:
        return ""
    try:
        return base64.b64decode(source["bytes"]).decode(errors="replace")
    except ValueError:
        return ""


def _texts(blocks: Any) -> list[str]:
    return [block["text"] for block in blocks if "text" in block]


def _result_texts(result: Json) -> Iterator[str]:
    for content in result.get("content") or ():
        if "text" in content:
            yield content["text"]
        elif "json" in content:
            yield "\n".join(_lines(content["json"]))
        elif "document" in content:
            yield document_text(content["document"])


def _lines(value: Any, name: str = "") -> Iterator[str]:
    """JSON as lines that can be quoted: ``city: Paris``."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _lines(member, f"{name} {key}".strip())
    elif isinstance(value, list):
        for member in value:
            yield from _lines(member, name)
    else:
        yield f"{name}: {value}" if name else str(value)


def _fenced(text: str) -> Iterator[Source]:
    for match in _FENCE.finditer(text):
        found = _ID.search(match["attributes"])
        yield Source(found[1] if found else None, match["text"].strip())


def _passages(text: str) -> list[Source]:
    """The fenced passages of a text, and what stands outside of them as one more."""
    rest = _FENCE.sub("\n", text).strip()
    return [*_fenced(text), *([Source(None, rest)] if rest else [])]


def _split_question(text: str) -> tuple[str, str]:
    """The context outside of fences, and the question, of one user text."""
    bare = _FENCE.sub("\n", text).strip()
    if labelled := _QUESTION_LABEL.search(bare):
        context = _CONTEXT_LABEL.sub("\n", bare[: labelled.start()]).strip()
        return context, labelled[1].strip()
    if labelled_context := _CONTEXT_LABEL.match(bare):
        bare = bare[labelled_context.end() :]
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", bare) if part.strip()]
    asking = [part for part in paragraphs if part.endswith("?")] or paragraphs[-1:]
    rest = "\n\n".join(part for part in paragraphs if part is not asking[-1]) if asking else ""
    return rest, asking[-1] if asking else ""
