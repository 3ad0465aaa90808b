"""Answers taken from the prompt: the sentences of its sources that fit the question best, quoted and cited.

Nothing is generated, so the same prompt gives the same answer, and every statement can be found in a source. Sentences
are ranked by BM25 over the prompt's own sentences together with the similarity of real embeddings.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

from loam_bedrock_local.embedder import Embedder, normalize
from loam_bedrock_local.prompt import Prompt, Source

NOT_FOUND = "I could not find an answer to that in the sources."
_MOST_SENTENCES = 3
_EDGE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\s*\n+\s*")
_BULLET = re.compile(r"^(?:[-*•+]|\d{1,2}[.)])\s+")
_HEADING = re.compile(r"^#{1,6}\s+(.*)")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_SAY = re.compile(
    r"\b(?:say|reply with|respond with|answer with|repeat|output)\b[^:\"“]*?(?::\s*|(?=[\"“]))[\"“]?(?P<text>[^\"”]+?)[\"”]?"
    r"(?:\s+and nothing else)?[.!]?\s*\Z",
    re.IGNORECASE,
)
# Words that carry no meaning of their own in a question.
_STOP = frozenset(
    """
    a about all also am an and any are as at be been but by can could did do does for from get give had has have how i
    if in into is it its just let may me might more most my no not of on or our please shall she he should so some such
    tell than that the their them then there these they this those to us was we were what when where which who whom
    whose why will with would you your
    """.split()  # noqa: SIM905 - a list of eighty quoted words reads worse
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A unit of a source that can be quoted, with the heading that it stands under."""

    text: str
    heading: str
    source: Source


def stem(word: str) -> str:
    """A word without its commonest English endings, so that `days` meets `day` and `booked` meets `booking`."""
    word = word.lower().replace("’s", "").replace("'s", "")
    for ending in ("ations", "ation", "ings", "ing", "ies", "ied", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def terms(text: str) -> list[str]:
    """The stems of the words of `text` that carry meaning."""
    return [stem(word) for word in _WORD.findall(text) if word.lower() not in _STOP]


def sentences(source: Source) -> list[Sentence]:
    """`source` cut into sentences, list items and lines, headings going with what stands under them."""
    found, heading = [], ""
    for part in _EDGE.split(source.text):
        line = _BULLET.sub("", part.strip())
        if titled := _HEADING.match(line):
            heading = titled[1]
        elif line:
            found.append(Sentence(line, heading, source))
    return found


class Answerer:
    """Answers prompts in words."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def answer(self, prompt: Prompt) -> str:
        """The best answer that the prompt itself holds, or an honest word that it holds none."""
        pool = [sentence for source in prompt.sources for sentence in sentences(source)]
        if not pool:
            return _without_sources(prompt)
        best = self._best(prompt, pool)
        if not best and prompt.tool_results:
            return "\n".join(prompt.tool_results)
        if not best:
            return NOT_FOUND
        return " ".join(_quote(sentence, prompt.citation) for sentence in best)

    def _best(self, prompt: Prompt, pool: list[Sentence]) -> list[Sentence]:
        scores = self._scores(prompt, pool)
        order = sorted(range(len(pool)), key=lambda index: -scores[index])
        top = scores[order[0]]
        if top < 0.3:
            return []
        chosen: list[int] = []
        for index in order:
            if len(chosen) == _MOST_SENTENCES or scores[index] < 0.7 * top:
                break
            if all(pool[index].text != pool[other].text for other in chosen):
                chosen.append(index)
        return [pool[index] for index in chosen]

    def _scores(self, prompt: Prompt, pool: list[Sentence]) -> list[float]:
        query = _query(prompt)
        lexical = _bm25(query, [Counter(terms(s.text)) + Counter(terms(s.heading)) for s in pool])
        texts = [prompt.question, *(s.text for s in pool)]
        vectors = normalize(self._embedder.embed(texts))
        similar = vectors[1:] @ vectors[0]
        return [0.7 * words + 0.3 * max(0.0, float(close)) for words, close in zip(lexical, similar, strict=True)]


def _query(prompt: Prompt) -> dict[str, float]:
    """The question's terms with weights; those of the question before it count half in a short follow-up."""
    query = dict.fromkeys(terms(prompt.question), 1.0)
    if len(query) < 3:
        query = dict.fromkeys(terms(prompt.earlier_question), 0.5) | query
    return query


def _bm25(query: dict[str, float], documents: list[Counter[str]]) -> list[float]:
    """BM25 of each document, divided by what one that held every term once would score."""
    total = len(documents)
    lengths = [document.total() for document in documents]
    average = sum(lengths) / total or 1
    holding = {term: sum(term in document for document in documents) for term in query}
    weights = {t: w * math.log(1 + (total - holding[t] + 0.5) / (holding[t] + 0.5)) for t, w in query.items()}
    highest = sum(weights.values()) or 1
    return [
        sum(
            weight * document[term] * 2.2 / (document[term] + 1.2 * (0.6 + 0.4 * length / average))
            for term, weight in weights.items()
        )
        / highest
        for document, length in zip(documents, lengths, strict=True)
    ]


def _quote(sentence: Sentence, citation: tuple[str, str] | None) -> str:
    if citation is None or sentence.source.id is None:
        return sentence.text
    return f"{sentence.text} {citation[0]}{sentence.source.id}{citation[1]}"


def _without_sources(prompt: Prompt) -> str:
    """An honest answer to a prompt that brings nothing to answer from."""
    if wanted := _SAY.search(prompt.question):
        return wanted["text"].strip()
    said = f"You wrote: “{prompt.question}”" if prompt.question else "You wrote nothing"
    return (
        "This is Loam's local stand-in for Amazon Bedrock, not a language model: it answers from text in the prompt, "
        f"calls tools and counts tokens, but knows nothing by itself. {said}"
    )
