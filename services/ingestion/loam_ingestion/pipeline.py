"""The sources of a RagPipeline's spec, as ingestion reads them."""

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
