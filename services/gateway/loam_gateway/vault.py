"""Encryption at rest of what must be read back: provider credentials, storage keys, answers kept for replay."""

import base64
import binascii
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_KEY_BYTES = 32


class VaultError(Exception):
    """The key is unusable, or a stored value was not written with this key for this purpose."""


class Vault:
    """AES-256-GCM under one key. `purpose` is authenticated, so a value cannot be moved to another row or column."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def from_file(cls, path: Path) -> "Vault":
        """A vault whose key is the base64 of 32 bytes in `path`. Raises VaultError when it is not."""
        try:
            key = base64.b64decode(path.read_text().strip(), validate=True)
        except (OSError, binascii.Error, UnicodeDecodeError) as error:
            raise VaultError(f"the encryption key in {path} cannot be read: {error}") from error
        if len(key) != _KEY_BYTES:
            raise VaultError(f"the encryption key in {path} must be the base64 of {_KEY_BYTES} bytes")
        return cls(key)

    def encrypt(self, plain: bytes, *, purpose: str) -> bytes:
        """Nonce and ciphertext of `plain`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, purpose.encode())

    def decrypt(self, sealed: bytes, *, purpose: str) -> bytes:
        """What `encrypt` was given for the same purpose. Raises VaultError."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise VaultError(f"a stored {purpose} cannot be decrypted with this encryption key") from error
