"""How well texts answer a question: BM25 over the texts themselves, together with the similarity of embeddings."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from loam_bedrock_local.embedder import Embedder, normalize
from loam_bedrock_local.words import terms

_WORDS_SHARE = 0.6


def relevance(
    embedder: Embedder, question: str, query: Mapping[str, float], texts: Sequence[str], bags: Sequence[Counter[str]]
) -> list[float]:
    """A score for each of `texts`, whose words are in `bags`; `query` weighs the terms of the question."""
    vectors = normalize(embedder.embed([question, *texts]))
    meanings = vectors[1:] @ vectors[0]
    return [
        _WORDS_SHARE * word + (1 - _WORDS_SHARE) * max(0.0, float(meaning))
        for word, meaning in zip(bm25(query, bags), meanings, strict=True)
    ]


def rerank(embedder: Embedder, query: str, texts: Sequence[str]) -> list[float]:
    """A score from 0 to 1 for each of `texts`."""
    bags = [Counter(terms(text)) for text in texts]
    scores = relevance(embedder, query, dict.fromkeys(terms(query), 1.0), texts, bags)
    return [min(1.0, score) for score in scores]


def bm25(query: Mapping[str, float], bags: Sequence[Counter[str]]) -> list[float]:
    """BM25 of each bag, divided by what one of average length that held every term once would score."""
    total = len(bags)
    lengths = [bag.total() for bag in bags]
    average = sum(lengths) / total or 1
    holding = {term: sum(bag[term] >= 1 for bag in bags) for term in query}
    weights = {t: w * math.log(1 + (total - holding[t] + 0.5) / (holding[t] + 0.5)) for t, w in query.items()}
    highest = sum(weights.values()) or 1
    return [
        sum(w * bag[term] * 2.2 / (bag[term] + 1.2 * (0.6 + 0.4 * length / average)) for term, w in weights.items())
        / highest
        for bag, length in zip(bags, lengths, strict=True)
    ]
