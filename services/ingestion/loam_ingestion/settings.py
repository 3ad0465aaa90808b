"""A worker's settings, read once from the environment."""

import os
import socket
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ParsingLimits(BaseSettings):
    """What the process that parses one document may use."""

    model_config = SettingsConfigDict(env_prefix="LOAM_PARSING_", frozen=True)

    memory_bytes: int = 1 << 30
    cpu_seconds: int = 60
    wall_seconds: float = 120
    text_characters: int = 20_000_000


class Settings(BaseSettings):
    """See the common names of Loam's pods; `worker` tells two workers of one pipeline apart in the logs."""

    model_config = SettingsConfigDict(env_prefix="LOAM_", frozen=True)

    tenant: str
    pipeline: str
    config_file: Path
    gateway_url: str
    gateway_key_file: Path
    storage_bucket: str = "loam"
    storage_prefix: str
    sources_dir: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    worker: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    log_level: str = "info"

    jobs_per_batch: int = 16
    documents_at_once: int = 2
    embeddings_at_once: int = 4
    document_bytes: int = 200 * 1024 * 1024
    # A reader that was told of a version has so long to finish with it after the next one is committed.
    superseded_versions_seconds: float = 900
    parsing: ParsingLimits = Field(default_factory=ParsingLimits)
