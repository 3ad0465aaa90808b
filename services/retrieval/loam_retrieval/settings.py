"""A retrieval service's settings, read once from the environment."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """See the common names of Loam's pods."""

    model_config = SettingsConfigDict(env_prefix="LOAM_", frozen=True)

    tenant: str
    pipeline: str
    config_file: Path
    gateway_url: str
    storage_bucket: str = "loam"
    storage_prefix: str
    host: str = "127.0.0.1"
    port: int = 8080
    log_level: str = "info"

    # Characters of sources and of earlier turns that one prompt may hold; about four of them make a token.
    context_characters: int = 24_000
    history_characters: int = 12_000
    answer_seconds: float = 120
