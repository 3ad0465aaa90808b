"""Whether the index version being built may take the place of the one that serves: it is complete, and as good.

Complete: it holds every document that it has to, and no others (those are taken out). As good: passages of the index
that serves are looked for in both, by a few words of theirs and each by its own model. Where the new one misses
significantly more of them (McNemar's exact test, one-sided, 5 %), it is not put into service.
"""

import math
import re
from collections.abc import Sequence

from loam_ingestion.adapters.gateway import Gateway
from loam_ingestion.adapters.index import Index, Rows
from loam_ingestion.vectors import Embedder
from loam_shared.contracts.internal import IndexPointer, Job, JobResult, Target, Work

_SAMPLES = 50
_DEPTH = 10
_QUERY_WORDS = 24
_SIGNIFICANCE = 0.05
_SENTENCE = re.compile(r"[^.!?\n]+")


class Check:
    """Judges the version being built."""

    def __init__(self, gateway: Gateway, index: Index, embedder: Embedder) -> None:
        self._gateway = gateway
        self._index = index
        self._embedder = embedder

    async def run(self, job: Job, work: Work) -> tuple[IndexPointer | None, JobResult]:
        """The head of the version, from which strays are gone, and the judgement. Raises IngestionError."""
        serving, building = _pair(work.targets)
        if building is None:
            return None, JobResult(job_id=job.id, state="Done")
        wanted = set((await self._gateway.inventory(work.epoch)).documents)
        there = await self._index.document_ids(building)
        if missing := wanted - there:
            why = f"{len(missing)} of {len(wanted)} documents are missing from it; ask for it once more"
            return None, JobResult(job_id=job.id, state="Failed", error=why)
        strays = there - wanted
        head = await self._index.replace(building, dict.fromkeys(strays, Rows())) if strays else building.head
        building = building.model_copy(update={"head": head})
        why_not = None if building.chosen or serving is None else await self._worse(serving, building)
        if why_not:
            return head, JobResult(job_id=job.id, state="Failed", error=why_not)
        return head, JobResult(job_id=job.id, state="Done")

    async def _worse(self, serving: Target, building: Target) -> str | None:
        """Why the version being built is worse than the other, if it is. Raises GatewayError, IndexUnavailableError."""
        samples = await self._index.samples(serving, _SAMPLES)
        queries = {document_id: _words(text) for document_id, text in samples.items() if _words(text)}
        before, after = [await self._found(target, queries) for target in (serving, building)]
        lost, won = len(before - after), len(after - before)
        if lost <= won or _chance(lost, won) >= _SIGNIFICANCE:
            return None
        return (
            f"it finds {len(after)} of {len(queries)} sampled passages, version {serving.index_version} finds "
            f"{len(before)}; go to it by its number if you want it all the same"
        )

    async def _found(self, target: Target, queries: dict[str, str]) -> set[str]:
        """The documents that their own words find."""
        vectors = await self._embedder.embed(queries, target.recipe.embedding)
        if failure := vectors.failure(list(queries)):
            raise failure
        return {
            document_id
            for document_id, vector in vectors.by_hash.items()
            if document_id in await self._index.nearest_documents(target, vector, _DEPTH)
        }


def _pair(targets: Sequence[Target]) -> tuple[Target | None, Target | None]:
    return (
        next((target for target in targets if target.serving and target.head), None),
        next((target for target in targets if not target.serving), None),
    )


def _words(text: str) -> str:
    """Words from the longest sentence of a passage."""
    longest = max(_SENTENCE.findall(text), key=len, default="")
    return " ".join(longest.split()[:_QUERY_WORDS])


def _chance(lost: int, won: int) -> float:
    """How likely so many losses or more are, where a loss and a win are equally likely."""
    both = lost + won
    return float(sum(math.comb(both, count) for count in range(lost, both + 1)) / 2**both)
