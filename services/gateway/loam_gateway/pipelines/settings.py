"""Settings of the pipelines' room, read once at start-up (prefix ``LOAM_``). Times in seconds, sizes in bytes."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class PipelineSettings(BaseSettings):
    """Limits and paces. A lease is how long a silent worker keeps others from its pipeline."""

    model_config = SettingsConfigDict(env_prefix="LOAM_")

    lease_seconds: float = Field(default=30, gt=0)
    """How long a worker that fell silent keeps others from its pipeline."""
    max_attempts: int = Field(default=5, ge=1)
    """How often a job is tried before its document is marked as failed."""
    max_deaths: int = Field(default=20, ge=1)
    """How many workers in a row may die with a job: nodes that are drained kill workers too, and blame no document."""
    retry_seconds: float = Field(default=5, gt=0)
    """The pause before the second attempt; later ones are longer."""
    max_document_bytes: int = Field(default=100 * 2**20, gt=0)
    """The largest upload."""
    max_uploads: int = Field(default=32, ge=1)
    """How many uploads one gateway takes in at once, half of them of one tenant; each holds up to 12 MiB in memory."""
    superseded_versions_seconds: float = Field(default=900, ge=0)
    """How long a reader that was told of an index version has to finish with it, once the next one is published."""
    housekeeping_seconds: float = Field(default=5, gt=0)
    """How often due syncs and abandoned objects are looked for."""
    source_events_queue_url: Annotated[str | None, Field(pattern=r"^https?://[^/]+/.+")] = None
    """URL of an SQS queue, in `AWS_REGION`, that is told of changed objects in source buckets; none if not given."""
    query_timeout: float = Field(default=30, gt=0)
    """How long a search may take."""
    chat_timeout: float = Field(default=300, gt=0)
    """How long an answer may take."""
    retrieval_pool_url: str | None = None
    """Where the platform's retrieval pool answers, exactly as the operator is told it. None: there is none."""
    conversation_ttl_seconds: float = Field(default=24 * 3600, gt=0)
    """How long after its last question a session is remembered."""
