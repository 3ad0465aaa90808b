"""Real sentence embeddings: WordLlama's 256-dimensional table of token vectors, averaged, on the CPU.

The weights and the tokenizer lie in the `wordllama` wheel and are read directly: importing the package itself would
bring in its training and download code, and its own `load()` goes to the network.
"""

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
DIMENSIONS = 256


class Embedder:
    """Turns texts into vectors. The table (16 MB) is loaded at first use, or early by `load`."""

    def load(self) -> None:
        """Have weights and tokenizer in memory."""
        _ = self._table, self._tokenizer

    def embed(self, texts: list[str]) -> Vectors:
        """One row of 256 for each text: the mean of its tokens' vectors."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for index, ids in enumerate(rows):
            if ids:
                vectors[index] = self._table[ids].mean(axis=0, dtype=np.float32)
        return vectors

    @cached_property
    def _table(self) -> NDArray[np.float16]:
        from safetensors import safe_open  # noqa: PLC0415 - start-up stays fast for those who never embed

        with safe_open(str(_packaged("weights/l2_supercat_256.safetensors")), framework="np") as weights:
            table: NDArray[np.float16] = weights.get_tensor("embedding.weight")
        return table

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer  # noqa: PLC0415 - as above

        tokenizer = Tokenizer.from_file(str(_packaged("tokenizers/l2_supercat_tokenizer_config.json")))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


def widen(vectors: Vectors, dimensions: int) -> Vectors:
    """`vectors` of 256 as vectors of `dimensions`, a multiple of 256, with every length and angle kept.

    Each vector is written `dimensions / 256` times over and divided by the root of that number. That is an isometry:
    dot products, norms and cosines are those of the 256 dimensions, so wider ones cost more and find the same.
    """
    copies = dimensions // DIMENSIONS
    wide: Vectors = (np.tile(vectors, copies) / np.sqrt(copies)).astype(np.float32)
    return wide


def normalize(vectors: Vectors) -> Vectors:
    """Rows at length one; a row of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)
    return unit


def _packaged(name: str) -> Path:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the wheel `wordllama` is missing: install loam[bedrock-local]")
    return Path(spec.origin).parent / name
