"""Prompt caching: which part of a request was seen before, so that it is billed as read, and which is written now."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from loam_bedrock_local.converse import Usage
from loam_bedrock_local.counting import block_tokens, blocks, input_tokens
from loam_bedrock_local.errors import AccessDeniedError
from loam_bedrock_local.models import Model
from loam_bedrock_local.prompt import Json

_LEAST_TOKENS = 1024
_MOST_ENTRIES = 4096
_SECONDS = {"5m": 300.0, "1h": 3600.0}
_PROVIDERS = {"anthropic", "amazon"}


@dataclass(frozen=True, slots=True)
class _Prefix:
    """Everything up to a cache point."""

    digest: bytes
    tokens: int
    ttl: str


class PromptCache:
    """Remembers prefixes that end in a cache point, each until nobody has read it for its time to live."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expiry: OrderedDict[bytes, float] = OrderedDict()

    def usage(self, model: Model, body: Json) -> Usage:
        """The input side of what `body` costs, output still nought.

        Raises:
            AccessDeniedError: the model has no prompt cache.
        """
        total = input_tokens(body)
        if not any("cachePoint" in block for block in blocks(body)):
            # Claude reports its cache figures always, the others when the cache is used.
            return Usage(total, 0, 0, 0) if model.provider == "anthropic" else Usage(total, 0)
        if model.provider not in _PROVIDERS:
            raise AccessDeniedError("You invoked an unsupported model or your request did not allow prompt caching.")
        prefixes = [prefix for prefix in _prefixes(model, body) if prefix.tokens >= _LEAST_TOKENS]
        read = end = max((prefix.tokens for prefix in prefixes if self._is_live(prefix)), default=0)
        written: dict[str, int] = {}
        for prefix in prefixes:
            self._keep(prefix)
            if prefix.tokens > end:
                written[prefix.ttl] = written.get(prefix.ttl, 0) + prefix.tokens - end
                end = prefix.tokens
        return Usage(total - end, 0, read, end - read, tuple(written.items()))

    def _is_live(self, prefix: _Prefix) -> bool:
        return self._expiry.get(prefix.digest, 0.0) > self._clock()

    def _keep(self, prefix: _Prefix) -> None:
        self._expiry[prefix.digest] = self._clock() + _SECONDS[prefix.ttl]
        self._expiry.move_to_end(prefix.digest)
        if len(self._expiry) > _MOST_ENTRIES:
            self._expiry.popitem(last=False)


def _prefixes(model: Model, body: Json) -> list[_Prefix]:
    found, seen, counted = [], hashlib.sha256(model.name.encode()), 0
    for block in blocks(body):
        if "cachePoint" in block:
            found.append(_Prefix(seen.digest(), counted, block["cachePoint"].get("ttl", "5m")))
        else:
            seen.update(orjson.dumps(block))
            counted += block_tokens(block)
    return found
