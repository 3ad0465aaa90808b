"""A retrieval service's settings, read once from the environment."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from loam_shared.contracts.admin import StorageGrant
from loam_shared.index import s3_of_environment

_OF_A_PIPELINE = ("tenant", "pipeline", "config_file", "storage_prefix")


class Settings(BaseSettings):
    """See the common names of Loam's pods."""

    model_config = SettingsConfigDict(env_prefix="LOAM_", frozen=True)

    tenant: str | None = None
    """The tenant whose pod this is. Without it the process is the platform's pool, which serves any tenant's."""
    pipeline: str | None = None
    """The name of its RagPipeline."""
    config_file: Path | None = None
    """File with the RagPipeline's spec as JSON."""
    gateway_url: str
    """Base URL of the gateway's internal listener."""
    storage_bucket: str = "loam"
    """The bucket with documents and indexes."""
    storage_prefix: str | None = None
    """The tenant's part of the bucket, such as `tenants/acme/`."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8080
    """The port to listen on."""
    log_level: str = "info"
    """The least severe level that is logged."""

    prompt_tokens: int = 16_000
    """The most tokens of a prompt, where the pipeline's `generation.contextTokens` does not say how many fit."""
    expansion_seconds: float = 10
    """How long rewriting a question may take; after that the search goes on with the question alone."""
    rerank_seconds: float = 10
    """How long a reranker may take; after that the search keeps its own order."""
    answer_seconds: float = 120
    """How long writing an answer may take."""

    open_pipelines: int = Field(default=1000, ge=1)
    """How many pipelines are kept open at once; the one that was unused for longest goes first."""
    idle_seconds: float = Field(default=900, gt=0)
    """After so long without a question a pipeline is no longer kept open."""
    index_cache_mib: int = Field(default=192, ge=1)
    """The most that is kept in memory of indexes, of all pipelines together."""
    metadata_cache_mib: int = Field(default=32, ge=1)
    """The most that is kept in memory of tables' metadata, of all pipelines together."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        missing = [name for name in _OF_A_PIPELINE if getattr(self, name) is None]
        if missing and len(missing) < len(_OF_A_PIPELINE):
            raise ValueError(f"LOAM_{missing[0].upper()} is missing; a pool has none of {', '.join(_OF_A_PIPELINE)}")
        return self

    def storage(self) -> StorageGrant:
        """Where a pipeline's own pod finds its index; as whom, the object store sees from AWS's own variables."""
        region, endpoint = s3_of_environment()
        prefix = self.storage_prefix or ""
        return StorageGrant(bucket=self.storage_bucket, prefix=prefix, region=region, endpoint=endpoint)
