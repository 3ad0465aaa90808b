"""Citations: the model's ``[n]`` become quotes that stand in the sources word for word.

A marker in the answer counts the citations given so far: text says ``[2]`` where the second citation belongs. Markers
of sources that were never retrieved are taken out and counted, and so are those behind a quotation that does not stand
in the source they name.
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
# What stands in double quotation marks, in any of their forms, within a paragraph.
_QUOTED = re.compile(
    r"[\"\u201c\u201d\u201e\u00ab\u00bb]([^\"\u201c\u201d\u201e\u00ab\u00bb\n]+)[\"\u201c\u201d\u00ab\u00bb]"
)
_ELLIPSIS = re.compile(r"\[?(?:\u2026|\.\.\.)\]?|\u22ef")
_SHORTEST_QUOTED = 4
# So many more words of the claim must stand in another sentence of a source that was cited already.
_CLEARLY_BETTER = 2
_LONGEST_QUOTE = 500
_LONGEST_CLAIM = 1000
_DECLINES = 0


class Citer:
    """Rewrites an answer's text as it streams by.

    `declined` says that the answer began with ``[0]``, the word for "not in the sources": it gets no citations.
    `dropped` counts the markers that were taken out.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._given: list[tuple[int, Citation]] = []
        self._held = ""
        self._claim = ""
        self.dropped = 0
        self.declined = False

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
        if self.declined and not self._claim:
            text = text.lstrip()
        if text:
            self._claim = (self._claim + text)[-_LONGEST_CLAIM:]
            yield text

    def _cited(self, numbers: Sequence[int]) -> Iterator[str | Citation]:
        if numbers == [_DECLINES] and not self._claim.strip():
            self.declined = True
            return
        claim = _last_sentence(self._claim)
        for number in numbers:
            is_there = not self.declined and 1 <= number <= len(self._passages)
            citation = quotation(self._passages[number - 1], claim) if is_there else None
            if citation is None:
                self.dropped += 1
                continue
            place = self._place_of(number, citation, claim)
            if place is None:
                self._given.append((number, citation))
                yield citation
            yield f"[{place or len(self._given)}]"

    def _place_of(self, number: int, citation: Citation, claim: str) -> int | None:
        """The place, from 1, of a citation of the same source that supports the claim about as well."""
        words = set(_words(claim))
        needed = len(words.intersection(_words(citation.quote))) - _CLEARLY_BETTER
        for place, (cited, given) in enumerate(self._given, 1):
            if cited == number and len(words.intersection(_words(given.quote))) > needed:
                return place
        return None


def quotation(passage: Passage, claim: str) -> Citation | None:
    """What `claim` rests on in `passage`, word for word: what it quotes, else the sentence that says most of it.

    None where the claim quotes, in quotation marks, what does not stand in the passage.
    """
    quoted = _quoted(claim)
    if quoted:
        places = [_place(passage.text, words) for words in quoted]
        return None if None in places else _citation(passage, *(places[0] or (0, 0)))
    words = set(_words(claim))
    spans = [match.span() for match in _SENTENCE.finditer(passage.text)] or [(0, len(passage.text))]
    return _citation(passage, *max(spans, key=lambda span: _overlap(words, passage.text[slice(*span)])))


def _citation(passage: Passage, start: int, end: int) -> Citation:
    end = min(end, start + _LONGEST_QUOTE)
    return Citation(
        document_id=passage.document_id,
        source=passage.source,
        span=Span(start=passage.start + start, end=passage.start + end, page=passage.page),
        quote=passage.text[start:end],
    )


def _quoted(claim: str) -> list[list[str]]:
    """The words of each passage that the claim quotes, the longest first; an ellipsis ends one."""
    parts = (part for quote in _QUOTED.findall(claim) for part in _ELLIPSIS.split(quote))
    return sorted((words for part in parts if len(words := _words(part)) >= _SHORTEST_QUOTED), key=len, reverse=True)


def _place(text: str, quoted: Sequence[str]) -> tuple[int, int] | None:
    """Where the words stand in `text` one after another, whatever lies between them: line breaks, dashes, commas."""
    found = re.search(r"\W+".join(map(re.escape, quoted)), text, re.IGNORECASE)
    return found.span() if found else None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _overlap(words: set[str], sentence: str) -> float:
    own = set(_words(sentence))
    # Shared words count; of two sentences that share as many, the one with fewer others says it more exactly.
    return len(words & own) + (1 / (1 + len(own - words)) if own else 0)


def _last_sentence(text: str) -> str:
    # What was left out of a quotation ends no sentence.
    sentences = _SENTENCE.findall(_ELLIPSIS.sub("\u22ef", text.rstrip()) + " ")
    return str(sentences[-1]) if sentences else text
