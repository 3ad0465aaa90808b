"""The part of a RagPipeline's spec that ingestion works by."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class _Spec(BaseModel):
    # The rest of the spec is for others, so what is unknown here is not an error.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class S3Source(_Spec):
    """Objects of a bucket below a prefix; no suffixes means all of them."""

    bucket: str
    prefix: str = ""
    suffixes: tuple[str, ...] = ()


class ConfigMapSource(_Spec):
    """The entries of a ConfigMap, each of which is a document."""

    name: str


class Source(_Spec):
    """Exactly one of its fields is set; uploads need no looking at and are left out."""

    s3: S3Source | None = None
    config_map: ConfigMapSource | None = None


class Chunking(_Spec):
    """How documents are cut; sizes in tokens as `chunking.tokens` counts them."""

    strategy: Literal["Recursive", "Markdown", "Sentence"] = "Recursive"
    max_tokens: int = 400
    overlap_tokens: int = 40


class Embedding(_Spec):
    """The model, by the name callers use at the gateway, and the length of its vectors."""

    model: str
    dimensions: int = 512


class Pipeline(_Spec):
    """What `pipeline.json` says to a worker."""

    sources: tuple[Source, ...] = ()
    chunking: Chunking = Chunking()
    embedding: Embedding

    @classmethod
    def read(cls, path: Path) -> "Pipeline":
        """Raises OSError and pydantic.ValidationError."""
        return cls.model_validate_json(path.read_bytes())
