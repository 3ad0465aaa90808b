"""Figures of a ranking against judgements, as trec_eval computes them (github.com/usnistgov/trec_eval).

A query's figure is over all its relevant documents, found or not; a set's figure is the mean over the queries that have
any. A document that was not judged is not relevant.
"""

import math
from collections.abc import Mapping, Sequence

Judgements = Mapping[str, int]
"""Grade of each judged document; 1 and more is relevant."""


def ndcg(ranked: Sequence[str], judged: Judgements, depth: int = 10) -> float:
    """Normalised discounted cumulative gain: the grade itself is the gain, log2(rank + 1) the discount."""
    gains = [max(judged.get(document, 0), 0) for document in ranked[:depth]]
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:depth]
    return _discounted(gains) / _discounted(ideal) if ideal else 0.0


def recall(ranked: Sequence[str], judged: Judgements, depth: int = 100) -> float:
    """The share of the relevant documents that stand among the first `depth`."""
    relevant = {document for document, grade in judged.items() if grade > 0}
    return len(relevant.intersection(ranked[:depth])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], judged: Judgements, depth: int = 10) -> float:
    """One divided by the rank of the first relevant document, 0 where none is among the first `depth`."""
    ranks = (rank for rank, document in enumerate(ranked[:depth], 1) if judged.get(document, 0) > 0)
    return 1 / next(ranks, math.inf)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
