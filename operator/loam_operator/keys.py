"""What a key's Secret says: the key, when it was made, and which older one still works beside it."""

import base64
import binascii
from dataclasses import dataclass, replace
from datetime import datetime

from loam_operator.cluster import Manifest
from loam_operator.labels import KEY_CREATED, KEY_HASH, OWNER_UID, PREVIOUS_EXPIRES, PREVIOUS_HASH
from loam_shared.contracts.admin import KeyHash
from loam_shared.credentials import hash_api_key

DATA_KEY = "key"


@dataclass(frozen=True)
class StoredKey:
    """A key, and the hash of the one before it for as long as that works."""

    key: str
    created: datetime
    previous_hash: str | None = None
    previous_expires: datetime | None = None

    def hashes(self, now: datetime) -> tuple[KeyHash, ...]:
        """What opens the gateway now."""
        current = KeyHash(sha256=hash_api_key(self.key))
        if self.previous_hash and self.previous_expires and self.previous_expires > now:
            return (current, KeyHash(sha256=self.previous_hash, expires_at=self.previous_expires))
        return (current,)

    def without_expired(self, now: datetime) -> "StoredKey":
        """The same, with an older key that no longer works forgotten."""
        if self.previous_expires and self.previous_expires > now:
            return self
        return replace(self, previous_hash=None, previous_expires=None)

    def followed_by(self, key: str, now: datetime, until: datetime) -> "StoredKey":
        """The next key, with this one working beside it `until` then."""
        return StoredKey(key, now, hash_api_key(self.key), until) if until > now else StoredKey(key, now)

    def annotations(self) -> dict[str, str]:
        """All but the key itself, as annotations of its Secret."""
        known = {KEY_HASH: hash_api_key(self.key), KEY_CREATED: _text(self.created)}
        if self.previous_hash and self.previous_expires:
            known |= {PREVIOUS_HASH: self.previous_hash, PREVIOUS_EXPIRES: _text(self.previous_expires)}
        return known


def is_owned(secret: Manifest, uid: str) -> bool:
    """Whether a Secret was made for the object with this uid."""
    owner: str | None = secret["metadata"].get("annotations", {}).get(OWNER_UID)
    return owner == uid


def stored(secret: Manifest) -> StoredKey | None:
    """The key in a Secret of ours; None when it is not the one that we wrote there."""
    annotations = secret["metadata"].get("annotations", {})
    try:
        key = base64.b64decode((secret.get("data") or {}).get(DATA_KEY, ""), validate=True).decode()
        if hash_api_key(key) != annotations.get(KEY_HASH):
            return None
        expires = annotations.get(PREVIOUS_EXPIRES)
        return StoredKey(
            key,
            datetime.fromisoformat(annotations[KEY_CREATED]),
            annotations.get(PREVIOUS_HASH),
            datetime.fromisoformat(expires) if expires else None,
        )
    except (binascii.Error, UnicodeDecodeError, KeyError, ValueError):
        return None


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
