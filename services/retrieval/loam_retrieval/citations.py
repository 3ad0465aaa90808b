"""Citations: the model's ``[n]`` become quotes that stand in the sources word for word.

A marker in the answer counts the citations given so far: text says ``[2]`` where the second citation belongs. Markers
of sources that were never retrieved are taken out and counted.
"""

import re
from collections.abc import Iterator, Sequence

from loam_retrieval.adapters.index import Passage
from loam_shared.contracts.retrieval import Citation, Span

_MARKER = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_BEGUN = re.compile(r"\[[\d\s,;]{0,20}\Z")
# A long line that ends in the middle of a sentence was wrapped by an editor, unless a list or heading begins below it.
_WRAP = r"(?<=[^\n]{60})(?<![:;|])\n(?![\n#|>*\u2022+-]|\d+[.)])"
_SENTENCE = re.compile(rf"[^\s](?:[^\n]|{_WRAP})*?(?:[.!?\u2026][\"')\]]*(?=\s)|(?!{_WRAP})(?=\n)|\Z)")
_WORD = re.compile(r"\w+")
_LONGEST_QUOTE = 500


class Citer:
    """Rewrites an answer's text as it streams by."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._numbers: dict[int, int] = {}
        self._held = ""
        self._claim = ""
        self.dropped = 0

    def feed(self, text: str) -> Iterator[str | Citation]:
        """What can be shown of the answer so far: text, and each citation right before its first marker."""
        self._held += text
        while marker := _MARKER.search(self._held):
            before, self._held = self._held[: marker.start()], self._held[marker.end() :]
            yield from self._shown(before)
            yield from self._cited([int(number) for number in _WORD.findall(marker[1])])
        begun = _BEGUN.search(self._held)
        safe = begun.start() if begun else len(self._held)
        ready, self._held = self._held[:safe], self._held[safe:]
        yield from self._shown(ready)

    def end(self) -> Iterator[str]:
        """What was held back because it might have become a marker."""
        yield from self._shown(self._held)
        self._held = ""

    def _shown(self, text: str) -> Iterator[str]:
        if text:
            self._claim = (self._claim + text)[-1000:]
            yield text

    def _cited(self, numbers: Sequence[int]) -> Iterator[str | Citation]:
        for number in numbers:
            if not 1 <= number <= len(self._passages):
                self.dropped += 1
                continue
            if number not in self._numbers:
                self._numbers[number] = len(self._numbers) + 1
                yield quotation(self._passages[number - 1], _last_sentence(self._claim))
            yield f"[{self._numbers[number]}]"


def quotation(passage: Passage, claim: str) -> Citation:
    """The sentence of `passage` that says most of what `claim` says, word for word."""
    words = set(_WORD.findall(claim.lower()))
    spans = [match.span() for match in _SENTENCE.finditer(passage.text)] or [(0, len(passage.text))]
    start, end = max(spans, key=lambda span: _overlap(words, passage.text[slice(*span)]))
    end = min(end, start + _LONGEST_QUOTE)
    return Citation(
        document_id=passage.document_id,
        source=passage.source,
        span=Span(start=passage.start + start, end=passage.start + end, page=passage.page),
        quote=passage.text[start:end],
    )


def _overlap(words: set[str], sentence: str) -> float:
    own = set(_WORD.findall(sentence.lower()))
    # Shared words count; of two sentences that share as many, the one with fewer others says it more exactly.
    return len(words & own) + (1 / (1 + len(own - words)) if own else 0)


def _last_sentence(text: str) -> str:
    sentences = _SENTENCE.findall(text.rstrip() + " ")
    return str(sentences[-1]) if sentences else text
