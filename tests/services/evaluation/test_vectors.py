"""Nothing is embedded twice, whatever is interrupted and whoever else embeds at the same time."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from loam_evaluation.vectors import VectorCache


class Counting:
    """Embeds a text as its length; breaks off after so many texts."""

    name = "counting"
    identity = "counting-1"

    def __init__(self, breaks_after: int = 1000) -> None:
        self.embedded: list[str] = []
        self._breaks_after = breaks_after

    async def passages(self, texts: Sequence[str]) -> np.ndarray:
        if len(self.embedded) >= self._breaks_after:
            raise KeyboardInterrupt
        self.embedded += texts
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    async def query(self, text: str) -> np.ndarray:
        raise NotImplementedError


TEXTS = [f"text {'x' * number}" for number in range(50)]


async def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    first = Counting(breaks_after=30)
    with pytest.raises(KeyboardInterrupt):
        await VectorCache(first, tmp_path).passages(TEXTS)
    second = Counting()
    vectors = await VectorCache(second, tmp_path).passages([*TEXTS, TEXTS[0]])
    assert vectors[:, 0].tolist() == [len(text) for text in [*TEXTS, TEXTS[0]]]
    assert sorted(first.embedded + second.embedded) == sorted(TEXTS)


async def test_two_runs_at_once_both_get_every_vector(tmp_path):
    results = await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, VectorCache(Counting(), tmp_path).passages(TEXTS)) for _ in range(2))
    )
    for vectors in results:
        assert vectors[:, 0].tolist() == [len(text) for text in TEXTS]
    again = Counting()
    await VectorCache(again, tmp_path).passages(TEXTS)
    assert again.embedded == []
