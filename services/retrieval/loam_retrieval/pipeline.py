"""The part of a RagPipeline's spec that retrieval works by."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class _Spec(BaseModel):
    # The rest of the spec is for others, so what is unknown here is not an error.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Toggle(_Spec):
    """Something that is on or off."""

    enabled: bool = False


class Rerank(Toggle):
    """Whether a model puts the candidates in order, and which; none is named where the tenant has none."""

    model: str | None = None


class Retrieval(_Spec):
    """How to search: `top_k` passages out of `candidates` from each kind of search."""

    mode: Literal["Hybrid", "Vector", "Keyword"] = "Hybrid"
    top_k: int = 8
    candidates: int = 50
    rerank: Rerank = Rerank()
    query_expansion: Toggle = Toggle()


class Generation(_Spec):
    """The model that answers, and how. The temperature is a decimal string, as in manifests.

    `context_tokens` are for prompt and answer together.
    """

    model: str
    system_prompt: str | None = None
    temperature: str | None = None
    max_tokens: int | None = None
    context_tokens: int | None = None


class Pipeline(_Spec):
    """What `pipeline.json` says to a retrieval service; without `generation` it searches but does not chat."""

    retrieval: Retrieval = Retrieval()
    generation: Generation | None = None

    @classmethod
    def read(cls, path: Path) -> "Pipeline":
        """Raises OSError and pydantic.ValidationError."""
        return cls.model_validate_json(path.read_bytes())
