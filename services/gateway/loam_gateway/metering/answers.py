"""A metered answer on its way out, and how it is kept for the same request to come again."""

from dataclasses import dataclass, replace

import orjson

from loam_gateway.ledger.model import Posting
from loam_gateway.metering.charge import Charge
from loam_gateway.vault import Vault
from loam_shared.money import format_usd

_PURPOSE = "kept answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """A body and its headers."""

    body: bytes
    headers: dict[str, str]
    media_type: str = "application/json"

    def sealed(self, vault: Vault) -> bytes:
        """For keeping."""
        kept = {"body": self.body.decode(), "headers": self.headers, "mediaType": self.media_type}
        return vault.encrypt(orjson.dumps(kept), purpose=_PURPOSE)

    @classmethod
    def unsealed(cls, vault: Vault, sealed: bytes) -> "Answer":
        """What was kept, marked as a replay, which costs nothing."""
        kept = orjson.loads(vault.decrypt(sealed, purpose=_PURPOSE))
        headers = kept["headers"] | {"x-loam-cost-usd": "0", "x-loam-replayed": "true"}
        return cls(kept["body"].encode(), headers, kept["mediaType"])

    def with_headers(self, more: dict[str, str]) -> "Answer":
        """The same with further headers."""
        return replace(self, headers=self.headers | more)


def call_headers(charge: Charge, *, asked_tokens: int | None = None, dropped: tuple[str, ...] = ()) -> dict[str, str]:
    """What is known once the call is under way: what was changed about the request, and who serves it."""
    headers = {"x-loam-cache": "miss", "x-loam-model": charge.quote.model.name}
    granted = charge.hold.max_output_tokens
    if asked_tokens is not None and granted < asked_tokens:
        headers["x-loam-max-tokens"] = str(granted)
    if dropped:
        headers["x-loam-dropped-params"] = ",".join(dropped)
    return headers


def cost_headers(posting: Posting) -> dict[str, str]:
    """What is known once the call is posted."""
    return {"x-loam-cost-usd": format_usd(posting.cost_nanos)} | remaining_header(posting.remaining_nanos)


def remaining_header(nanos: int | None) -> dict[str, str]:
    """What is left under the tightest cap; nothing when there is none."""
    return {} if nanos is None else {"x-loam-budget-remaining-usd": format_usd(max(0, nanos))}
