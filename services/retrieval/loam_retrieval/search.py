"""Search over a pipeline's index: by meaning, by words, or by both."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lancedb.expr import Expr

from loam_retrieval.adapters.gateway import Gateway, Vector
from loam_retrieval.adapters.index import Hit, Index, Passage
from loam_retrieval.combination import EXPANSION, IN_CONTEXT, combined
from loam_retrieval.diversity import distinct
from loam_retrieval.expansion import Expander
from loam_retrieval.filters import Filter, expression
from loam_retrieval.fusion import fuse
from loam_retrieval.pipeline import Pipeline
from loam_retrieval.question import Question
from loam_retrieval.reranking.routed import Reranker
from loam_retrieval.settings import Settings
from loam_retrieval.usage import add
from loam_shared.contracts.internal import IndexPointer
from loam_shared.contracts.retrieval import Usage


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
        hits, cost = await self._candidates(token, weighted, at, where, candidates)
        usage = add(usage, cost)
        if self._reranker is None:
            return Found(await self._distinct(at, hits, limit), usage)
        passages = await self._index.passages(at, hits)
        passages, cost = await self._reranker(token, question.standalone, passages)
        return Found(distinct(passages, limit), add(usage, cost))

    async def _distinct(self, at: IndexPointer, hits: Sequence[Hit], limit: int) -> list[Passage]:
        """The best passages that say something of their own. Rows are read only as far as that takes."""
        few = hits[: 2 * limit]
        passages = distinct(await self._index.passages(at, few), limit)
        if len(passages) < limit and len(few) < len(hits):
            return distinct(await self._index.passages(at, hits), limit)
        return passages

    async def _searches(self, token: str, question: Question) -> tuple[dict[str, float], Usage]:
        """What to search for, each text with its weight, the question itself first."""
        others, usage = await self._expander(token, question) if self._expander else ([], Usage())
        weighted = {question.text: 1.0}
        if question.in_context:
            weighted[question.in_context] = IN_CONTEXT
        return weighted | {text: EXPANSION / len(others) for text in others if text not in weighted}, usage

    async def _candidates(
        self, token: str, weighted: Mapping[str, float], at: IndexPointer, where: Expr | None, candidates: int
    ) -> tuple[list[Hit], Usage]:
        """What the first text finds, and the others beside it, best first."""
        texts = list(weighted)
        vectors: Sequence[Vector | None] = [None] * len(texts)
        usage = Usage()
        if self._pipeline.retrieval.mode != "Keyword":
            vectors, usage = await self._gateway.embed(token, texts, at.embedding.model, at.embedding.dimensions)
        searches = (self._one(at, text, vector, where, candidates) for text, vector in zip(texts, vectors, strict=True))
        return _together(await asyncio.gather(*searches), list(weighted.values()))[:candidates], usage

    async def _one(
        self, at: IndexPointer, text: str, vector: Vector | None, where: Expr | None, candidates: int
    ) -> list[Hit]:
        """The candidates for one text, best first, in the pipeline's mode; by words alone without a vector."""
        if vector is None:
            return await self._index.matching(at, text, where, candidates)
        if self._pipeline.retrieval.mode == "Vector":
            return await self._index.nearest(at, vector, where, candidates)
        by_meaning, by_words = await asyncio.gather(
            self._index.nearest(at, vector, where, candidates), self._index.matching(at, text, where, candidates)
        )
        cosines = {hit.row: hit.score for hit in by_meaning}
        unknown = [hit.row for hit in by_words if hit.row not in cosines]
        return fuse(cosines | await self._index.cosines(at, vector, unknown), by_words)


def _together(searches: Sequence[list[Hit]], weights: Sequence[float]) -> list[Hit]:
    """What several searches found, the first of them the question's own; what it found alone stays as it is."""
    if len(searches) == 1:
        return searches[0]
    scored = [{hit.row: hit.score for hit in hits} for hits in searches]
    return [Hit(row, score) for row, score in combined(zip(weights, scored, strict=True)).items()]
