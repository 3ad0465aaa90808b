"""Secrets of tenants and models at rest: credentials with providers, and where alerts go."""

import base64
from collections.abc import Callable

from loam_gateway.vault import Vault
from loam_shared.contracts.admin import TenantPut

_PURPOSE = "tenant credential"
_MODEL_PURPOSE = "model credential"


def sealed(vault: Vault, secret: str) -> str:
    """`secret` encrypted, as text."""
    return base64.b64encode(vault.encrypt(secret.encode(), purpose=_PURPOSE)).decode()


def revealed(vault: Vault, text: str) -> str:
    """What `sealed` was given. Raises VaultError."""
    return vault.decrypt(base64.b64decode(text), purpose=_PURPOSE).decode()


def sealed_model(vault: Vault, credential: str | None) -> bytes | None:
    """The platform's credential for a model, encrypted."""
    return vault.encrypt(credential.encode(), purpose=_MODEL_PURPOSE) if credential else None


def revealed_model(vault: Vault, sealed_credential: bytes | None) -> str | None:
    """What `sealed_model` was given. Raises VaultError."""
    return vault.decrypt(sealed_credential, purpose=_MODEL_PURPOSE).decode() if sealed_credential else None


def sealed_tenant(vault: Vault, tenant: TenantPut) -> TenantPut:
    """`tenant` with its secrets encrypted."""
    return _with_secrets(tenant, lambda secret: sealed(vault, secret))


def revealed_tenant(vault: Vault, tenant: TenantPut) -> TenantPut:
    """What `sealed_tenant` was given. Raises VaultError."""
    return _with_secrets(tenant, lambda text: revealed(vault, text))


def public_tenant(tenant: TenantPut) -> TenantPut:
    """`tenant` as the audit log shows it: that there are secrets, but not which."""
    return _with_secrets(tenant, lambda _secret: "***")


def _with_secrets(tenant: TenantPut, change: Callable[[str], str]) -> TenantPut:
    credentials = [known.model_copy(update={"secret": change(known.secret)}) for known in tenant.provider_credentials]
    targets = tenant.budget.alerts
    if targets.slack_webhook is not None:
        targets = targets.model_copy(update={"slack_webhook": change(targets.slack_webhook)})
    budget = tenant.budget.model_copy(update={"alerts": targets})
    return tenant.model_copy(update={"provider_credentials": tuple(credentials), "budget": budget})
