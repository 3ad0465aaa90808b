"""An answer as it is kept: neither plain nor streamed, so that it can become both."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from loam_gateway.vault import Vault, VaultError

LARGEST = 2**20
"""Bytes of an answer; a larger one is not kept."""


@dataclass(frozen=True, slots=True)
class Cached:
    """OpenAI's message, why it ended, what it used; which of the tenant's models said it, and what that cost.

    `headers` are those that stay true when it is served again.
    """

    message: dict[str, Any]
    finish: str
    usage: dict[str, Any]
    model: str
    cost_nanos: int
    headers: dict[str, str] = field(default_factory=dict)

    def sealed(self, vault: Vault, key: bytes) -> bytes | None:
        """For keeping under `key`, and under no other; None when it is too large."""
        plain = orjson.dumps(self)
        return vault.encrypt(plain, purpose=_purpose(key)) if len(plain) <= LARGEST else None

    @classmethod
    def unsealed(cls, vault: Vault, key: bytes, sealed: bytes) -> "Cached | None":
        """What was kept under `key`; None when it was written with another encryption key, or is no answer."""
        try:
            return cls(**orjson.loads(vault.decrypt(sealed, purpose=_purpose(key))))
        except (VaultError, ValueError, TypeError):
            return None


def _purpose(key: bytes) -> str:
    return f"cached answer {key.hex()}"
