"""From the events of ConverseStream to the chunks of a streamed chat completion."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from loam_gateway.completions.answer import Heading, finish_reason, tokens_of
from loam_gateway.completions.converse import ANSWER_TOOL
from loam_gateway.ledger.model import Tokens

Chunk = dict[str, Any]


@dataclass(slots=True)
class ChunkMaker:
    """Turns events into chunks one by one, and remembers what the settlement needs.

    `tokens` is None until the provider has said what it used; `output_bytes` is the output seen up to now, which
    bounds its tokens. `last` is what is to be sent at the very end, once the provider's answer came to its end.
    """

    heading: Heading
    json_answer: bool
    tokens: Tokens | None = None
    output_bytes: int = 0
    last: list[Chunk] = field(default_factory=list)
    _calls: dict[int, int] = field(default_factory=dict)
    _answer_blocks: set[int] = field(default_factory=set)

    def chunks(self, event: str, payload: dict[str, Any]) -> Iterable[Chunk]:
        """The chunks that one event becomes; most become one, some none."""
        if event == "contentBlockDelta":
            return self._delta(payload["contentBlockIndex"], payload["delta"])
        if event == "contentBlockStart":
            return self._block_start(payload["contentBlockIndex"], payload["start"])
        if event == "messageStart":
            return [self._chunk({"role": "assistant", "content": "", "refusal": None})]
        if event == "messageStop":
            self.last = [self._chunk({}, finish_reason(payload["stopReason"], calls=bool(self._calls)))]
        elif event == "metadata":
            self.tokens = tokens_of(payload.get("usage", {}))
        return []

    def usage_chunk(self, usage: dict[str, Any]) -> Chunk:
        """The last chunk of a stream, which has no choices."""
        return self._frame([]) | {"usage": usage}

    def _block_start(self, index: int, start: dict[str, Any]) -> list[Chunk]:
        use = start.get("toolUse")
        if use is None:
            return []
        self.output_bytes += len(use["name"].encode())
        if self.json_answer and use["name"] == ANSWER_TOOL:
            self._answer_blocks.add(index)
            return []
        self._calls[index] = len(self._calls)
        function = {"name": use["name"], "arguments": ""}
        return [self._call_chunk(index, {"id": use["toolUseId"], "type": "function", "function": function})]

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Chunk]:
        if "text" in delta:
            self.output_bytes += len(delta["text"].encode())
            return [self._chunk({"content": delta["text"]})]
        if "toolUse" in delta:
            return self._arguments(index, delta["toolUse"].get("input", ""))
        if reasoning := delta.get("reasoningContent", {}).get("text"):
            self.output_bytes += len(reasoning.encode())
            return [self._chunk({"reasoning_content": reasoning})]
        return []

    def _arguments(self, index: int, part: str) -> list[Chunk]:
        self.output_bytes += len(part.encode())
        if index in self._answer_blocks:
            return [self._chunk({"content": part})]
        return [self._call_chunk(index, {"function": {"arguments": part}})]

    def _call_chunk(self, index: int, call: dict[str, Any]) -> Chunk:
        return self._chunk({"tool_calls": [{"index": self._calls[index]} | call]})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> Chunk:
        return self._frame([{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}])

    def _frame(self, choices: list[dict[str, Any]]) -> Chunk:
        return {
            "id": self.heading.id,
            "object": "chat.completion.chunk",
            "created": self.heading.created,
            "model": self.heading.model,
            "choices": choices,
        }
