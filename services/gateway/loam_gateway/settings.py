"""The gateway's settings, read once at start-up from the environment (prefix ``LOAM_``)."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    """What every command of the gateway needs: where the truth is kept."""

    model_config = SettingsConfigDict(env_prefix="LOAM_")

    database_url: str = Field(repr=False)
    log_level: str = "info"


class Settings(DatabaseSettings):
    """What `serve` needs. Times are in seconds, sizes in bytes."""

    redis_url: str = Field(repr=False)

    host: str = "127.0.0.1"
    public_port: int = 8080
    internal_port: int = 8081
    admin_port: int = 8082

    admin_token_file: Path
    encryption_key_file: Path
    signing_key_file: Path

    storage_bucket: str = "loam"
    storage_identities: Literal["Iam", "Pod"] = "Iam"

    startup_timeout: float = Field(default=60, gt=0)
    drain_timeout: float = Field(default=5, ge=0)
    max_body_bytes: int = Field(default=10 * 2**20, gt=0)
    database_connections: int = Field(default=16, ge=4)

    provider_connect_timeout: float = Field(default=5, gt=0)
    provider_read_timeout: float = Field(default=120, gt=0)
    request_timeout: float = Field(default=600, gt=0)
