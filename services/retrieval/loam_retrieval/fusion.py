"""Words and meaning together: one order out of two searches."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loam_retrieval.adapters.index import Hit

# How much meaning counts beside words, chosen on one half of SciFact's queries and judged on the other, then on other
# questions (docs/guides/evaluation.md): more serves a strong embedding model better and lets a weak one do harm.
_MEANING = 0.3
Scores = NDArray[np.float64]


def fuse(cosines: Mapping[int, float], by_words: Sequence[Hit]) -> list[Hit]:
    """All candidates, best first, by a weighted sum of the z-scores of their cosine and of their BM25.

    Z-scores (Montague and Aslam, "Relevance score normalization for metasearch", CIKM 2001) ask how far a candidate
    stands out among the others. So a model whose cosines all lie between 0.75 and 0.9 says as much as one that uses the
    whole range, which it does not where scores are divided by the best one, and unlike ranks they keep by how much.

    `cosines` are those of all rows that either search found. A row that only the meaning found scores 0 for words, one
    whose vector has no direction 0 for meaning. The score is the logistic function of the sum, from 0 to 1.
    """
    words = {hit.row: hit.score for hit in by_words}
    rows = sorted({*cosines, *words})
    if not rows:
        return []
    meaning = _standing_out([cosines.get(row, 0.0) for row in rows])
    wording = _standing_out([words.get(row, 0.0) for row in rows])
    scores = (_MEANING * meaning + (1 - _MEANING) * wording).tolist()
    fused = [Hit(row, 1 / (1 + math.exp(-score))) for row, score in zip(rows, scores, strict=True)]
    return sorted(fused, key=lambda hit: (-hit.score, hit.row))


def _standing_out(scores: Sequence[float]) -> Scores:
    """Standard deviations from the mean; all 0 where there is no difference but rounding."""
    values = np.asarray(scores, dtype=np.float64)
    deviation = values.std()
    away: Scores = values - values.mean()
    return away / deviation if deviation > 1e-6 * max(1.0, np.abs(values).max()) else np.zeros_like(away)
