"""Reranking by a model behind the gateway, charged to the caller."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog
from prometheus_client import Counter

from loam_retrieval.adapters.gateway import Gateway
from loam_retrieval.adapters.index import Passage
from loam_shared.contracts.retrieval import Usage
from loam_shared.errors import BudgetExceededError, LoamError

_log = structlog.get_logger()
_FAILED = Counter(
    "loam_retrieval_rerank_failures_total", "Searches that kept their order because the reranker failed or was late."
)


class Reranker:
    """Puts passages in the order of a model that reads each of them together with the question."""

    def __init__(self, gateway: Gateway, model: str, seconds: float) -> None:
        self._gateway = gateway
        self._model = model
        self._seconds = seconds

    async def __call__(self, token: str, query: str, passages: Sequence[Passage]) -> tuple[list[Passage], Usage]:
        """The passages, best first, with the model's scores, and what that cost.

        Where the model fails or is late they come back as they are, which is counted. Raises BudgetExceededError.
        """
        if len(passages) < 2:
            return list(passages), Usage()
        try:
            async with asyncio.timeout(self._seconds):
                texts = [passage.text for passage in passages]
                scores, usage = await self._gateway.rerank(token, query, texts, self._model)
        except BudgetExceededError:
            raise
        except (LoamError, TimeoutError) as error:
            _FAILED.inc()
            _log.warning("reranking failed, the search goes on without", model=self._model, error=repr(error))
            return list(passages), Usage()
        scored = [replace(passage, score=score) for passage, score in zip(passages, scores, strict=True)]
        # The sort is stable: what the model finds equal stays in the order of the search.
        return sorted(scored, key=lambda passage: -passage.score), usage
