"""The gateway's settings, read once at start-up from the environment (prefix ``LOAM_``)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    """What every command of the gateway needs: where the truth is kept."""

    model_config = SettingsConfigDict(env_prefix="LOAM_")

    database_url: str = Field(repr=False)
    """PostgreSQL, as `postgresql://user:password@host:port/database`."""
    log_level: str = "info"
    """The least severe level that is logged."""


class Settings(DatabaseSettings):
    """What `serve` needs. Times are in seconds, sizes in bytes."""

    redis_url: str = Field(repr=False)
    """Redis or Valkey, for rate limits only: nothing in it is the truth."""

    host: str = "127.0.0.1"
    """The address that all three listeners bind."""
    public_port: int = 8080
    """Port of the public listener, the only one that callers reach."""
    internal_port: int = 8081
    """Port of the internal listener, for tenants' pods."""
    admin_port: int = 8082
    """Port of the admin listener, for the operator."""

    admin_token_file: Path
    """File with the bearer token of the admin API."""
    encryption_key_file: Path
    """File with 32 bytes in base64: the AES-256-GCM key for stored secrets and kept answers."""
    signing_key_file: Path
    """File with a private Ed25519 JWK, which signs caller tokens."""

    storage_bucket: str = "loam"
    """The bucket with every tenant's documents and indexes."""
    storage_identities: Literal["Iam", "Pod"] = "Iam"
    """`Iam`: a user per tenant is made over the IAM API; `Pod`: pods bring an identity of their own."""

    startup_timeout: float = Field(default=60, gt=0)
    """How long the start waits for PostgreSQL."""
    hold_seconds: float = Field(default=60, ge=1)
    """How long the budget stays held for a call whose gateway died; a gateway that lives renews its holds."""
    drain_timeout: float = Field(default=5, ge=0)
    """How long a stop waits for calls that are under way."""
    max_body_bytes: int = Field(default=10 * 2**20, gt=0)
    """The largest body of a request that is no upload."""
    requests_at_work: int = Field(default=8, ge=1)
    """How many requests are worked on at once, not counting those that wait for a provider. Tenants take turns."""
    database_connections: int = Field(default=16, ge=4)
    """The most connections to PostgreSQL."""
    ledger_retention_months: int = Field(default=24, ge=1)
    """How many whole months entries are kept after the one they are of; the audit log is kept for ever."""

    cors_origins: Annotated[frozenset[str], NoDecode] = frozenset()
    """Origins of web pages that may call the public listener, separated by commas, as `https://app.example.com`."""
    resume_seconds: float = Field(default=60, gt=0)
    """How long a resumable stream goes on without a listener, and is kept after its end."""
    resume_bytes: int = Field(default=2**20, gt=0)
    """How much of a resumable stream is kept, in bytes; a listener further behind cannot catch up."""
    websockets_per_tenant: int = Field(default=1000, ge=1)
    """The most WebSocket connections of one tenant to one gateway."""
    websocket_stall_seconds: float = Field(default=20, gt=0)
    """How long a WebSocket client may leave unread what is sent to it, and its pings unanswered."""

    cache_seconds: int = Field(default=300, ge=0, le=30 * 86_400)
    """How long an answer is served again to the same request of the same tenant; 0 turns that off."""

    provider_connect_timeout: float = Field(default=5, gt=0)
    """How long connecting to the provider may take."""
    provider_read_timeout: float = Field(default=120, gt=0)
    """How long the provider may stay silent."""
    hedge_seconds: float = Field(default=0, ge=0)
    """After so long without an answer, a plain completion is asked of the model's next region, too; both calls are
    paid for. 0 turns that off."""
    circuit_failures: int = Field(default=10, ge=0)
    """After so many failures in a row a model is left alone in that region for a while; 0 turns that off."""
    circuit_cooldown_seconds: float = Field(default=10, gt=0)
    """How long it is left alone until one call tries again; each time in vain doubles it, up to eightfold."""

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _listed(cls, value: str | frozenset[str]) -> frozenset[str]:
        # The default is validated too.
        if isinstance(value, frozenset):
            return value
        return frozenset(origin.strip().rstrip("/").lower() for origin in value.split(",") if origin.strip())
