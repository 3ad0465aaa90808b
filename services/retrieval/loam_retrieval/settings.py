"""A retrieval service's settings, read once from the environment."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """See the common names of Loam's pods."""

    model_config = SettingsConfigDict(env_prefix="LOAM_", frozen=True)

    tenant: str
    """The tenant whose pod this is."""
    pipeline: str
    """The name of its RagPipeline."""
    config_file: Path
    """File with the RagPipeline's spec as JSON."""
    gateway_url: str
    """Base URL of the gateway's internal listener."""
    storage_bucket: str = "loam"
    """The bucket with documents and indexes."""
    storage_prefix: str
    """The tenant's part of the bucket, such as `tenants/acme/`."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8080
    """The port to listen on."""
    log_level: str = "info"
    """The least severe level that is logged."""

    context_characters: int = 24_000
    """The most characters of sources in a prompt; about four of them make a token."""
    history_characters: int = 12_000
    """The most characters of earlier turns in a prompt."""
    answer_seconds: float = 120
    """How long writing an answer may take."""
