"""An answer as it streams in: printed piece by piece, then its sources, its cost, and what the budget still holds."""

import re
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape

from loam_cli.adapters.gateway import Gateway
from loam_cli.console import out
from loam_shared.contracts.retrieval import Citation, Usage
from loam_shared.money import parse_usd

_MARKER = re.compile(r"\s*\[\d+\]\s*")


@dataclass
class Answer:
    """What came of one question."""

    text: str = ""
    citations: list[Citation] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    """For each citation, the mark in the text that it belongs to, such as ``[1]``."""
    usage: Usage = field(default_factory=Usage)

    def hear(self, text: str) -> None:
        """Take in a piece of the text; a mark follows the citations that it stands for."""
        self.text += text
        if _MARKER.fullmatch(text):
            self.markers += [text.strip()] * (len(self.citations) - len(self.markers))

    def to_json(self) -> dict[str, Any]:
        """The answer for machines, shaped as the API does."""
        citations = [citation.model_dump(by_alias=True, exclude_none=True) for citation in self.citations]
        return {"content": self.text, "citations": citations, "usage": self.usage.model_dump(by_alias=True)}


async def answered(
    gateway: Gateway, pipeline: str, question: str, session: str | None = None, *, aloud: bool = True
) -> Answer:
    """Ask, and print the answer while it comes when `aloud`."""
    answer = Answer()
    async for event in gateway.chat(pipeline, [{"role": "user", "content": question}], session):
        match event.event:
            case "token":
                answer.hear(event.data["text"])
                if aloud:
                    out.print(event.data["text"], end="", markup=False)
                    out.file.flush()
            case "citation":
                answer.citations.append(Citation.model_validate(event.data))
            case "usage":
                answer.usage = Usage.model_validate(event.data)
    if aloud:
        out.print()
    return answer


def print_sources(answer: Answer) -> None:
    """Each source once, with the mark that the answer gives it and the first thing that was quoted from it."""
    seen = set()
    markers = answer.markers + [""] * (len(answer.citations) - len(answer.markers))
    for marker, citation in zip(markers, answer.citations, strict=True):
        place = f"{citation.source}, page {citation.span.page}" if citation.span.page else citation.source
        if (marker, place) not in seen:
            seen.add((marker, place))
            out.print(f"  [cyan]{escape(f'{marker} {place}'.strip())}[/]  [dim]“{escape(_short(citation.quote))}”[/]")


async def print_cost(gateway: Gateway, usage: Usage) -> None:
    """What the answer cost, and the tightest cap that it was charged to."""
    tightest = min(
        (cap for cap in (await gateway.budget())["caps"] if cap["remainingUsd"] is not None),
        key=lambda cap: parse_usd(cap["remainingUsd"]),
        default=None,
    )
    left = f"; {cap_in_words(tightest)}" if tightest else ""
    out.print(f"  [dim]cost ${usage.cost_usd} for {usage.input_tokens} + {usage.output_tokens} tokens{left}[/]")


def cap_in_words(cap: dict[str, Any]) -> str:
    """A cap as a sentence would have it: what is left of how much, and of whose budget."""
    whose = {"tenant": "the tenant", "key": "this key"}.get(cap["scope"], f"{cap['scope']} {cap['subject']}")
    return f"${cap['remainingUsd']} of ${cap['capUsd']} left to {whose} this {cap['period']}"


def _short(text: str, longest: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
