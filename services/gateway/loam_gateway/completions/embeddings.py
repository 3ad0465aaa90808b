"""Embeddings: OpenAI's request on one side, what providers take on the other."""

import base64
from array import array
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from loam_gateway.completions.reply import is_count
from loam_shared.errors import InvalidRequestError

MAX_INPUTS = 2048
_COHERE_TEXTS = 96
_OPENAI_TEXTS = 256
# What a model may put around a text.
_FRAME_TOKENS = 8


class EmbeddingRequest(BaseModel):
    """The body of an embeddings call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, max_length=253)
    input: str | list[str]
    dimensions: int | None = Field(default=None, ge=1, le=8192)
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = Field(default=None, max_length=256)

    @property
    def texts(self) -> list[str]:
        """The inputs, none empty. Raises InvalidRequestError."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not texts or len(texts) > MAX_INPUTS:
            raise InvalidRequestError(f"input: give 1 to {MAX_INPUTS} texts", param="input")
        if "" in texts:
            raise InvalidRequestError(f"input.{texts.index('')}: the text is empty", param="input")
        return texts


@dataclass(frozen=True, slots=True)
class Batch:
    """One call to the provider with so many texts, and the most input tokens it can be: a token is at least a byte."""

    body: dict[str, Any]
    texts: int
    token_bound: int


def batches(texts: list[str], *, provider: str, model_id: str, dimensions: int | None) -> list[Batch]:
    """The provider calls for `texts`, as many texts each as the model takes. Raises InvalidRequestError."""
    if provider == "OpenAI":
        extra: dict[str, Any] = {"model": model_id} | ({"dimensions": dimensions} if dimensions else {})
        return [_batch({"input": group} | extra, group) for group in _groups(texts, _OPENAI_TEXTS)]
    if provider == "Bedrock" and "titan-embed" in model_id:
        extra = {"dimensions": dimensions, "normalize": True} if dimensions else {}
        return [_batch({"inputText": text} | extra, [text]) for text in texts]
    if provider == "Bedrock" and "cohere.embed" in model_id:
        extra = {"input_type": "search_document"} | ({"output_dimension": dimensions} if dimensions else {})
        return [_batch({"texts": group} | extra, group) for group in _groups(texts, _COHERE_TEXTS)]
    raise InvalidRequestError(f"model: {model_id} is not an embedding model that Loam can call", param="model")


def _groups(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def _batch(body: dict[str, Any], texts: list[str]) -> Batch:
    return Batch(body, len(texts), sum(len(text.encode()) + _FRAME_TOKENS for text in texts))


def vectors_of(reply: dict[str, Any], texts: int) -> list[list[float]]:
    """The vectors in a provider's reply, in the order of its texts. Raises ValueError unless there are so many."""
    try:
        vectors = _vectors(reply)
        if len(vectors) == texts:
            return vectors
    except (KeyError, TypeError) as error:
        raise ValueError(f"the answer has no vectors: {error!r}") from error
    raise ValueError(f"the answer has {len(vectors)} vectors for {texts} texts")


def _vectors(reply: dict[str, Any]) -> list[list[float]]:
    if "data" in reply:
        return [found["embedding"] for found in sorted(reply["data"], key=lambda found: found["index"])]
    if "embedding" in reply:
        return [reply["embedding"]]
    found = reply["embeddings"]
    vectors: list[list[float]] = found["float"] if isinstance(found, dict) else found
    return vectors


def tokens_in(reply: dict[str, Any]) -> int | None:
    """The input tokens that a provider's reply speaks of, if it does, and if they can be."""
    usage = reply.get("usage")
    counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return counted if is_count(counted) else None


def embedding_list(
    vectors: list[list[float]], *, model: str, encoding: str | None, tokens: int, cost_usd: str
) -> dict[str, Any]:
    """OpenAI's answer."""
    data = [{"object": "embedding", "index": i, "embedding": _encoded(v, encoding)} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "cost_usd": cost_usd}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _encoded(vector: list[float], encoding: str | None) -> list[float] | str:
    # Little-endian 32-bit floats are what OpenAI's clients decode.
    return base64.b64encode(array("f", vector).tobytes()).decode() if encoding == "base64" else vector
