"""Settings of the stand-in, read once from the environment."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where to listen, whom to accept, and which faults to play.

    `accept_keys` is a comma-separated list of bearer tokens, access key ids, or ``id:secret`` pairs; with a secret the
    signature itself is checked. Empty accepts every signed request.
    """

    model_config = SettingsConfigDict(env_prefix="LOAM_")

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 4010
    """The port to listen on."""
    accept_keys: str = ""
    """Bearer tokens, access key ids or `id:secret` pairs, separated by commas; empty accepts every signed request."""
    scenario_file: Path | None = None
    """JSON file with faults to play; a header can ask for one as well."""
    obedient: bool = False
    """Follow every instruction that stands outside of fenced sources, to test that prompts hold against it."""
    log_level: str = "warning"
    """The least severe level that is logged."""
