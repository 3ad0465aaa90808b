"""API keys and caller tokens: how they look, how they are hashed, signed and verified.

A key is shown once to the one who owns it; everything else keeps only its hash. A caller token is what the gateway
gives a service along with a call, so that what the service then asks for is charged to the caller.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

KEY_PREFIX = "loam_"
_ALGORITHM = "Ed25519"
_ISSUER = "loam-gateway"


def new_api_key() -> str:
    """A fresh key: the prefix (secret scanners know it) and 256 random bits in base 62."""
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return KEY_PREFIX + "".join(secrets.choice(alphabet) for _ in range(43))


def hash_api_key(key: str) -> str:
    """SHA-256 in hex. A key carries 256 random bits, so a slow password hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True)
class Caller:
    """On whose behalf a service acts: everything that the ledger needs to charge the right accounts.

    `serving` is the digest of what the retrieval pool is told along with the call (contracts/retrieval.py).
    """

    tenant: str
    key_id: str
    request_id: str
    user: str | None = None
    scopes: tuple[str, ...] = field(default=())
    pipeline: str | None = None
    agent: str | None = None
    run: str | None = None
    serving: str | None = None


class InvalidCallerTokenError(Exception):
    """The token is forged, expired or meant for another service or tenant."""


def new_signing_key() -> OKPKey:
    """An Ed25519 key for `sign_caller`."""
    return OKPKey.generate_key("Ed25519", {"use": "sig", "alg": _ALGORITHM}, auto_kid=True)


def sign_caller(caller: Caller, *, service: str, lifetime_seconds: float, key: OKPKey) -> str:
    """A token for one call to `service` on the caller's behalf, good until the call's deadline."""
    now = time.time()
    claims: dict[str, Any] = {
        "iss": _ISSUER,
        "aud": audience(service, caller.tenant),
        "iat": int(now),
        "exp": int(now + lifetime_seconds) + 1,
        "sub": caller.user,
        "tenant": caller.tenant,
        "key": caller.key_id,
        "rid": caller.request_id,
        "scp": list(caller.scopes),
        "pipeline": caller.pipeline,
        "agent": caller.agent,
        "run": caller.run,
        "serving": caller.serving,
    }
    header = {"alg": _ALGORITHM, "kid": key.kid}
    return jwt.encode(header, {name: value for name, value in claims.items() if value is not None}, key, [_ALGORITHM])


def verify_caller(token: str, *, keys: KeySet, service: str | None = None, tenant: str | None = None) -> Caller:
    """The caller in `token`.

    `service` and `tenant` are those of the verifier; the gateway, which gets its own tokens back, gives neither.
    Raises InvalidCallerTokenError.
    """
    try:
        claims = jwt.decode(token, keys, [_ALGORITHM]).claims
        jwt.JWTClaimsRegistry(iss={"essential": True, "value": _ISSUER}, exp={"essential": True}).validate(claims)
    except (JoseError, ValueError) as error:
        raise InvalidCallerTokenError(f"the caller token is not valid: {error}") from error
    if service is not None and claims.get("aud") != audience(service, tenant or str(claims.get("tenant"))):
        raise InvalidCallerTokenError(f"the caller token is for {claims.get('aud')}")
    return Caller(
        tenant=claims["tenant"],
        key_id=claims["key"],
        request_id=claims["rid"],
        user=claims.get("sub"),
        scopes=tuple(claims.get("scp", ())),
        pipeline=claims.get("pipeline"),
        agent=claims.get("agent"),
        run=claims.get("run"),
        serving=claims.get("serving"),
    )


def audience(service: str, tenant: str) -> str:
    """Whom a caller token is for: one service of one tenant."""
    return f"{service}.{tenant}"
