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
    """The most memory that the process which parses one document may take."""
    cpu_seconds: int = 60
    """The most processor time that it may take."""
    wall_seconds: float = 120
    """The most time that it may take."""
    text_characters: int = 20_000_000
    """The longest text that it may extract."""
    pages: int = 5_000
    """The most pages that a PDF may have."""


class Settings(BaseSettings):
    """See the common names of Loam's pods; `worker` tells two workers of one pipeline apart in the logs."""

    model_config = SettingsConfigDict(env_prefix="LOAM_", frozen=True)

    tenant: str
    """The tenant whose pod this is."""
    pipeline: str
    """The name of its RagPipeline."""
    gateway_url: str
    """Base URL of the gateway's internal listener."""
    gateway_key_file: Path
    """File with the pipeline's workload key."""
    storage_bucket: str = "loam"
    """The bucket with documents and indexes."""
    storage_prefix: str
    """The tenant's part of the bucket, such as `tenants/acme/`."""
    sources_dir: Path | None = None
    """Folder below which the ConfigMaps that are sources are mounted, one folder each."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8080
    """The port to listen on."""
    worker: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """What the worker calls itself in logs and leases; host and process unless given."""
    log_level: str = "info"
    """The least severe level that is logged."""

    jobs_per_batch: int = 256
    """The most jobs of one batch, written and committed as a whole: a commit costs what twenty documents do."""
    downloads_at_once: int = 8
    """How many documents are fetched, or wait for a parser in a temporary file, at the same time."""
    documents_at_once: int = 2
    """How many documents are parsed at the same time."""
    embeddings_at_once: int = 4
    """How many calls for embeddings are under way at the same time."""
    document_bytes: int = 200 * 1024 * 1024
    """The largest document that is read."""
    parsing: ParsingLimits = Field(default_factory=ParsingLimits)
