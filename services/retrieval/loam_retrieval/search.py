"""Search over a pipeline's index: by meaning, by words, or by both."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from lancedb.expr import Expr

from loam_retrieval.adapters.gateway import Gateway, Vector
from loam_retrieval.adapters.index import Index, Passage
from loam_retrieval.combination import EXPANSION, IN_CONTEXT, combined
from loam_retrieval.diversity import distinct
from loam_retrieval.expansion import Expander
from loam_retrieval.filters import Filter, expression
from loam_retrieval.pipeline import Pipeline
from loam_retrieval.question import Question
from loam_retrieval.reranking.routed import Reranker
from loam_retrieval.settings import Settings
from loam_retrieval.usage import add
from loam_shared.contracts.internal import IndexPointer
from loam_shared.contracts.retrieval import Usage

# How much meaning counts beside words in a hybrid search. Measured on SciFact (300 queries, nDCG@10) with the weakest
# embedding model there is here: words alone 0.684, meaning alone 0.511, reciprocal rank fusion 0.632, this combination
# 0.706, 0.708 and 0.703 with weights of 0.3, 0.4 and 0.5. Ranks forget by how much a candidate is better.
_MEANING = 0.4


@dataclass(frozen=True)
class Found:
    """Passages, best first, and what finding them cost."""

    passages: list[Passage]
    usage: Usage = field(default_factory=Usage)


class Search:
    """Searches as the pipeline's spec says: expand, find, fuse, rerank, and leave out near-duplicates."""

    def __init__(self, settings: Settings, pipeline: Pipeline, gateway: Gateway, index: Index) -> None:
        retrieval, generation = pipeline.retrieval, pipeline.generation
        self._pipeline = pipeline
        self._gateway = gateway
        self._index = index
        self._expander, self._reranker = None, None
        if retrieval.query_expansion.enabled and generation is not None:
            self._expander = Expander(gateway, generation, settings.expansion_seconds)
        if retrieval.rerank.enabled and retrieval.rerank.model is not None:
            self._reranker = Reranker(gateway, retrieval.rerank.model, settings.rerank_seconds)

    async def __call__(
        self, token: str, question: Question, at: IndexPointer | None, wanted: Filter, top_k: int | None = None
    ) -> Found:
        """The passages of version `at` that fit `question`; none where there is no index yet. Raises LoamErrors."""
        where = expression(wanted)
        if at is None or at.chunks == 0:
            return Found([])
        limit = top_k or self._pipeline.retrieval.top_k
        candidates = max(limit, self._pipeline.retrieval.candidates)
        weighted, usage = await self._searches(token, question)
        found = await self._candidates(token, weighted, at, where, candidates)
        passages, usage = found.passages[:candidates], add(usage, found.usage)
        if self._reranker:
            passages, cost = await self._reranker(token, question.standalone, passages)
            usage = add(usage, cost)
        return Found(distinct(passages, limit), usage)

    async def _searches(self, token: str, question: Question) -> tuple[dict[str, float], Usage]:
        """What to search for, each text with its weight, the question itself first."""
        others, usage = await self._expander(token, question) if self._expander else ([], Usage())
        weighted = {question.text: 1.0}
        if question.in_context:
            weighted[question.in_context] = IN_CONTEXT
        return weighted | {text: EXPANSION / len(others) for text in others if text not in weighted}, usage

    async def _candidates(
        self, token: str, weighted: Mapping[str, float], at: IndexPointer, where: Expr | None, candidates: int
    ) -> Found:
        """What the first text finds, and the others beside it."""
        texts = list(weighted)
        vectors: Sequence[Vector | None] = [None] * len(texts)
        usage = Usage()
        if self._pipeline.retrieval.mode != "Keyword":
            vectors, usage = await self._gateway.embed(token, texts, at.embedding.model, at.embedding.dimensions)
        searches = (self._one(at, text, vector, where, candidates) for text, vector in zip(texts, vectors, strict=True))
        return Found(_together(await asyncio.gather(*searches), list(weighted.values())), usage)

    async def _one(
        self, at: IndexPointer, text: str, vector: Vector | None, where: Expr | None, candidates: int
    ) -> list[Passage]:
        """The candidates for one text, best first, in the pipeline's mode; by words alone without a vector."""
        if vector is None:
            return await self._index.matching(at, text, where, candidates)
        if self._pipeline.retrieval.mode == "Vector":
            return await self._index.nearest(at, vector, where, candidates)
        by_meaning, by_words = await asyncio.gather(
            self._index.nearest(at, vector, where, candidates), self._index.matching(at, text, where, candidates)
        )
        return fuse(by_meaning, by_words, vector)


def _together(searches: Sequence[list[Passage]], weights: Sequence[float]) -> list[Passage]:
    """What several searches found, the first of them the question's own; what it found alone stays as it is."""
    if len(searches) == 1:
        return searches[0]
    found = {passage.chunk_id: passage for passages in searches for passage in passages}
    scored = [{passage.chunk_id: passage.score for passage in passages} for passages in searches]
    scores = combined(zip(weights, scored, strict=True))
    return [replace(found[key], score=score) for key, score in scores.items()]


def fuse(by_meaning: Sequence[Passage], by_words: Sequence[Passage], vector: Vector) -> list[Passage]:
    """All candidates by a convex combination of their cosine and their BM25, each on a scale that ends at its best.

    A candidate that only the words found has its cosine computed here; one that only the meaning found scores 0 for
    words.
    """
    found = {passage.chunk_id: passage for passage in (*by_words, *by_meaning)}
    words = {passage.chunk_id: passage.score for passage in by_words}
    best_words = max(words.values(), default=0.0) or 1.0
    meanings = {key: _cosine(passage.vector, vector) for key, passage in found.items()}
    best_meaning = max(meanings.values(), default=0.0) or 1.0
    fused = [
        replace(
            passage,
            score=_MEANING * max(0.0, meanings[key]) / best_meaning + (1 - _MEANING) * words.get(key, 0.0) / best_words,
        )
        for key, passage in found.items()
    ]
    return sorted(fused, key=lambda passage: (-passage.score, passage.chunk_id))


def _cosine(left: Vector, right: Vector) -> float:
    length = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / length if length else 0.0
