"""Settings of the pipelines' room, read once at start-up (prefix ``LOAM_``). Times in seconds, sizes in bytes."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class PipelineSettings(BaseSettings):
    """Limits and paces. A lease is how long a silent worker keeps others from its pipeline."""

    model_config = SettingsConfigDict(env_prefix="LOAM_")

    lease_seconds: float = Field(default=30, gt=0)
    max_attempts: int = Field(default=5, ge=1)
    retry_seconds: float = Field(default=5, gt=0)
    max_document_bytes: int = Field(default=100 * 2**20, gt=0)
    housekeeping_seconds: float = Field(default=5, gt=0)
    query_timeout: float = Field(default=30, gt=0)
    chat_timeout: float = Field(default=300, gt=0)
    conversation_ttl_seconds: float = Field(default=24 * 3600, gt=0)
