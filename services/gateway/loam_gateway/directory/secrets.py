"""Tenants' own provider credentials at rest."""

import base64

from loam_gateway.vault import Vault

_PURPOSE = "tenant credential"


def sealed(vault: Vault, secret: str) -> str:
    """`secret` encrypted, as text."""
    return base64.b64encode(vault.encrypt(secret.encode(), purpose=_PURPOSE)).decode()


def revealed(vault: Vault, text: str) -> str:
    """What `sealed` was given. Raises VaultError."""
    return vault.decrypt(base64.b64decode(text), purpose=_PURPOSE).decode()
