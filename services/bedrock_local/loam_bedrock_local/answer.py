"""Answers taken from the prompt: the sentences of its sources that fit the question best, quoted and cited.

Nothing is generated, so the same prompt gives the same answer, and every statement can be found in a source. Sentences
are ranked by BM25 over the prompt's own sentences together with the similarity of real embeddings.
"""

import re
from collections import Counter
from dataclasses import dataclass

from loam_bedrock_local.embedder import Embedder
from loam_bedrock_local.prompt import Prompt, Source
from loam_bedrock_local.ranking import relevance
from loam_bedrock_local.searches import searches
from loam_bedrock_local.words import sentences, terms

NOT_FOUND = "I could not find an answer to that in the sources."
# Chosen on 300 questions about finance, medicine, politics and history, each with one passage that answers it among
# four of the same document that do not: 88 % of the answers cite the right passage and 10 % of the questions are
# declined; with the right passage left out, 82 % are.
_LEAST_SCORE = 0.3
_NEAR_TOP = 0.75
_MOST_SENTENCES = 3
_HEADING_SHARE, _NEIGHBOUR_SHARE = 0.5, 0.2
_SAY = re.compile(
    r"\b(?:say|reply with|respond with|answer with|repeat|output)\b[^:\"\u201c]*?(?::\s*|(?=[\"\u201c]))"
    r"[\"\u201c]?(?P<text>[^\"\u201d]+?)[\"\u201d]?(?:\s+and nothing else)?[.!]?\s*\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may be quoted. `bag` weighs its terms, those of its heading, and those of its neighbours."""

    text: str
    source: Source
    bag: Counter[str]


class Answerer:
    """Answers prompts in words."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def answer(self, prompt: Prompt) -> str:
        """The best answer that the prompt itself holds, or an honest word that it holds none."""
        if prompt.wants_searches:
            return "\n".join(searches(prompt.named("question") or prompt.question, prompt.named("earlier")))
        passages = (*prompt.sources, *(() if prompt.tool_results else prompt.remarks))
        pool = [candidate for source in passages for candidate in _candidates(source)]
        best = self._best(prompt, pool) if pool else []
        if best:
            return _quotes(best, prompt.citation)
        if prompt.tool_results:
            return "\n".join(prompt.tool_results)
        if prompt.sources or prompt.citation:
            return f"[0] {NOT_FOUND}" if prompt.declines_by_number else NOT_FOUND
        return _without_sources(prompt)

    def _best(self, prompt: Prompt, pool: list[Candidate]) -> list[Candidate]:
        scores = self._scores(prompt, pool)
        order = sorted(range(len(pool)), key=lambda index: -scores[index])
        least = max(_LEAST_SCORE, _NEAR_TOP * scores[order[0]])
        distinct = {pool[index].text: index for index in reversed(order) if scores[index] >= least}
        chosen = sorted(distinct.values(), key=lambda index: -scores[index])[:_MOST_SENTENCES]
        return [pool[index] for index in chosen]

    def _scores(self, prompt: Prompt, pool: list[Candidate]) -> list[float]:
        bags = [candidate.bag for candidate in pool]
        return relevance(self._embedder, prompt.question, _query(prompt), [candidate.text for candidate in pool], bags)


def _candidates(source: Source) -> list[Candidate]:
    found = sentences(source.text)
    bags = [Counter(terms(sentence.text)) for sentence in found]
    candidates = []
    for index, sentence in enumerate(found):
        bag: Counter[str] = bags[index].copy()
        _add(bag, Counter(terms(sentence.heading)), _HEADING_SHARE)
        for neighbour in (*bags[max(0, index - 1) : index], *bags[index + 1 : index + 2]):
            _add(bag, neighbour, _NEIGHBOUR_SHARE)
        candidates.append(Candidate(sentence.text, source, bag))
    return candidates


def _add(bag: Counter[str], other: Counter[str], share: float) -> None:
    for term, count in other.items():
        bag[term] += share * count  # type: ignore[assignment]  # a Counter holds fractions as well


def _query(prompt: Prompt) -> dict[str, float]:
    """The question's terms with weights; those of the question before it count half in a short follow-up."""
    query = dict.fromkeys(terms(prompt.question), 1.0)
    if len(query) < 3:
        query = dict.fromkeys(terms(prompt.earlier_question), 0.5) | query
    return query


def _quotes(best: list[Candidate], citation: tuple[str, str] | None) -> str:
    """The sentences one after another, each with its source's id where citations are asked for."""
    return " ".join(_quote(candidate, citation) for candidate in best)


def _quote(candidate: Candidate, citation: tuple[str, str] | None) -> str:
    if citation is None or candidate.source.id is None:
        return candidate.text
    return f"{candidate.text} {citation[0]}{candidate.source.id}{citation[1]}"


def _without_sources(prompt: Prompt) -> str:
    """An honest answer to a prompt that brings nothing to answer from."""
    if wanted := _SAY.search(prompt.question):
        return wanted["text"].strip()
    said = f"You wrote: \u201c{prompt.question}\u201d" if prompt.question else "You wrote nothing."
    return (
        "This is Loam's local stand-in for Amazon Bedrock, not a language model: it answers from text in the prompt, "
        f"calls tools and counts tokens, but knows nothing by itself. {said}"
    )
