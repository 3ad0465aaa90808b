"""What OpenAI answers, under a heading of ours."""

from collections.abc import Iterable
from typing import Any

import orjson

from loam_gateway.completions.reply import Chunk, ChunkMaker, Said, Usage, plausible
from loam_gateway.ledger.model import Tokens


def usage_in(usage: Any) -> Usage | None:
    """What the server says it used."""
    return plausible(_usage, usage)


def _usage(usage: dict[str, Any]) -> Usage:
    read = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    written = (usage.get("prompt_tokens_details") or {}).get("cache_write_tokens") or 0
    prompt = usage.get("prompt_tokens") or 0
    tokens = Tokens(
        # The prompt's tokens have those of the cache among them; some servers count them apart.
        input=max(min(prompt, 0), prompt - read - written),
        output=usage.get("completion_tokens") or 0,
        cache_read=read,
        cache_write=written,
    )
    return Usage(tokens, (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0)


def said(reply: dict[str, Any]) -> Said:
    """What `reply` says."""
    choice = reply["choices"][0]
    message = {"content": None, "refusal": None} | choice["message"] | {"role": "assistant"}
    return Said(message, choice.get("finish_reason") or "stop", usage_in(reply.get("usage")))


class OpenAIChunks(ChunkMaker):
    """Chunks from chunks: the end and the usage are kept back until the call is posted."""

    def chunks(self, event: str, payload: dict[str, Any]) -> Iterable[Chunk]:
        """See ChunkMaker."""
        del event  # There is one kind only.
        if usage := payload.get("usage"):
            self.usage = usage_in(usage)
        choices = payload.get("choices")
        if not choices:
            return []
        if finish := choices[0].get("finish_reason"):
            self._finish(finish)
        delta = choices[0].get("delta") or {}
        if not isinstance(delta, dict):
            raise TypeError("a delta that is no object")
        self.output_bytes += _output_bytes(delta)
        return [self._chunk(delta)] if delta else []


def _output_bytes(delta: dict[str, Any]) -> int:
    """A bound of the output in `delta`: most are nothing but a piece of text."""
    if len(delta) == 1 and isinstance(text := delta.get("content"), str):
        return len(text.encode())
    return len(orjson.dumps(delta))
