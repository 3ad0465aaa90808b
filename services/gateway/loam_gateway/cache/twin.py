"""A whole answer and its stream are twins: either is made from the other. Pure."""

from collections.abc import Iterator
from typing import Any

from loam_gateway.completions.reply import Chunk, Heading, message_of

_SHAPE = {"object": "chat.completion.chunk"}


# Servers that speak OpenAI's protocol leave out, or add, this and that.
_MISSHAPEN = (KeyError, TypeError, AttributeError)


class Listener:
    """Puts a streamed answer together as its chunks go by, until it gets longer than `largest` characters.

    One that is not shaped as OpenAI's are is not put together; its caller has it all the same.
    """

    def __init__(self, largest: int) -> None:
        self._left = largest
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._reasoning: dict[int, dict[str, Any]] = {}
        self.finish = ""

    def hear(self, chunk: Chunk) -> None:
        """The next chunk."""
        if self._left < 0:
            return
        try:
            for choice in chunk["choices"]:
                self.finish = choice["finish_reason"] or self.finish
                self._take(choice["delta"])
        except _MISSHAPEN:
            self._left = -1

    def message(self) -> dict[str, Any] | None:
        """OpenAI's message of the whole answer; None when it was too long, misshapen, or is not at its end."""
        if self._left < 0 or not self.finish:
            return None
        try:
            return self._message()
        except _MISSHAPEN:
            return None

    def _message(self) -> dict[str, Any]:
        calls = [self._calls[index] for index in sorted(self._calls)]
        for index, call in zip(sorted(self._calls), calls, strict=True):
            call["function"]["arguments"] = "".join(self._arguments[index])
        reasoning = [self._reasoning[index] for index in sorted(self._reasoning)]
        return message_of(self._texts, calls, reasoning, "".join(self._refusals) or None)

    def _take(self, delta: dict[str, Any]) -> None:
        if text := delta.get("content"):
            self._keep(self._texts, text)
        if refusal := delta.get("refusal"):
            self._keep(self._refusals, refusal)
        for part in delta.get("tool_calls") or ():
            self._take_call(part)
        for detail in delta.get("reasoning_details") or ():
            self._take_reasoning(detail)

    def _take_call(self, part: dict[str, Any]) -> None:
        index, function = part["index"], part["function"]
        if "id" in part:
            self._calls[index] = {"id": part["id"], "type": "function", "function": {"name": function["name"]}}
        self._keep(self._arguments.setdefault(index, []), function.get("arguments", ""))

    def _take_reasoning(self, detail: dict[str, Any]) -> None:
        index = detail["index"]
        before = self._reasoning.get(index, {})
        self._left -= len(detail.get("text", "")) + len(detail.get("data", ""))
        whole = before | {name: value for name, value in detail.items() if name != "index"}
        if "text" in before or "text" in detail:
            whole["text"] = before.get("text", "") + detail.get("text", "")
        self._reasoning[index] = whole

    def _keep(self, parts: list[str], text: str) -> None:
        self._left -= len(text)
        parts.append(text)


def chunks_of(heading: Heading, message: dict[str, Any], finish: str, usage: dict[str, Any] | None) -> Iterator[Chunk]:
    """The chunks of a stream that says `message`; with `usage` one more for that."""
    yield _chunk(heading, {"role": "assistant", "content": "", "refusal": None})
    for index, detail in enumerate(message.get("reasoning_details") or ()):
        text = {"reasoning_content": detail["text"]} if detail.get("text") else {}
        yield _chunk(heading, text | {"reasoning_details": [detail | {"index": index}]})
    for name in ("content", "refusal"):
        if message.get(name):
            yield _chunk(heading, {name: message[name]})
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield _chunk(heading, {"tool_calls": [{"index": index} | call]})
    yield _chunk(heading, {}, finish)
    if usage is not None:
        yield _frame(heading, []) | {"usage": usage}


def _chunk(heading: Heading, delta: dict[str, Any], finish: str | None = None) -> Chunk:
    return _frame(heading, [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}])


def _frame(heading: Heading, choices: list[dict[str, Any]]) -> Chunk:
    named = {"id": heading.id, "created": heading.created, "model": heading.model}
    return named | _SHAPE | {"choices": choices}
