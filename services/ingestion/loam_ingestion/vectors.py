"""Vectors for texts: those that are known already, and the others from the gateway, in calls of many texts."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loam_ingestion.adapters.gateway import Gateway, Vector
from loam_ingestion.errors import GatewayError
from loam_shared.contracts.internal import Embedding

_TEXTS_PER_CALL = 64


@dataclass
class Vectors:
    """Vectors by content hash, and for the hashes that have none what the gateway said."""

    by_hash: dict[str, Vector] = field(default_factory=dict)
    failed: dict[str, GatewayError] = field(default_factory=dict)

    def failure(self, hashes: Sequence[str]) -> GatewayError | None:
        """Why one of these has no vector, if so."""
        return next((self.failed[one] for one in hashes if one in self.failed), None)


class Embedder:
    """Embeds texts of a pipeline, a few calls at the same time."""

    def __init__(self, gateway: Gateway, at_once: int) -> None:
        self._gateway = gateway
        self._slots = asyncio.Semaphore(at_once)

    async def embed(self, texts: Mapping[str, str], embedding: Embedding) -> Vectors:
        """Vectors of `texts` by content hash. A text that the model refuses fails alone."""
        hashes = list(texts)
        calls = [hashes[start : start + _TEXTS_PER_CALL] for start in range(0, len(hashes), _TEXTS_PER_CALL)]
        vectors = Vectors()
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(self._call(call, texts, embedding, vectors))
        return vectors

    async def _call(
        self, hashes: Sequence[str], texts: Mapping[str, str], embedding: Embedding, vectors: Vectors
    ) -> None:
        try:
            async with self._slots:
                rows = await self._gateway.embed([texts[one] for one in hashes], embedding.model, embedding.dimensions)
        except GatewayError as error:
            if error.status != 400 or len(hashes) == 1:
                vectors.failed |= dict.fromkeys(hashes, error)
                return
            # One of them is what the model does not take; which one shows by asking for halves.
            for half in (hashes[: len(hashes) // 2], hashes[len(hashes) // 2 :]):
                await self._call(half, texts, embedding, vectors)
        else:
            vectors.by_hash |= dict(zip(hashes, rows, strict=True))
