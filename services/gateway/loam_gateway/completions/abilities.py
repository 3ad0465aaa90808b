"""What models take, told from their ids, at Bedrock and at their makers. An id that is not known takes the usual."""

import re
from functools import lru_cache
from typing import Any

from loam_gateway.completions.request import ChatRequest

# claude-sonnet-4-5-20250929, anthropic.claude-opus-5-5, us.anthropic.claude-3-haiku-20240307-v1:0
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(\d)(?:-(\d)(?!\d))?(?:\D|$)")
_OTHERS_WITH_SCHEMAS = re.compile(r"(?:^|\.)zai\.glm")
_EFFORT_FIELDS = {"openai.gpt-oss": "reasoning_effort", "qwen.qwen3": "reasoning_config"}

SAMPLING = ("temperature", "top_p")


@lru_cache
def claude_version(model_id: str) -> tuple[int, int] | None:
    """Major and minor version of a Claude model; None for all others."""
    found = _CLAUDE.search(model_id)
    return (int(found[1]), int(found[2] or 0)) if found else None


@lru_cache
def most_sampling(model_id: str) -> int:
    """How many of SAMPLING may be given: the newest Claude models take none, those before them one of the two."""
    version = claude_version(model_id)
    if version is None or version < (4, 1):
        return len(SAMPLING)
    return 1 if version < (4, 7) else 0


@lru_cache
def takes_schemas(model_id: str) -> bool:
    """Whether the model can be held to a JSON Schema, in its answer or in a tool's arguments."""
    version = claude_version(model_id)
    return (version is not None and version >= (4, 5)) or bool(_OTHERS_WITH_SCHEMAS.search(model_id))


@lru_cache
def thinks_adaptively(model_id: str) -> bool:
    """Whether the model is told how hard to think by a word."""
    version = claude_version(model_id)
    return version is not None and version >= (4, 6)


@lru_cache
def effort_field(model_id: str) -> str | None:
    """The additional field of Bedrock's that tells a model other than Claude how hard to think."""
    return next((field for prefix, field in _EFFORT_FIELDS.items() if prefix in model_id), None)


def sampling(request: ChatRequest, model_id: str, *, thinking: bool = False) -> dict[str, float]:
    """The sampling parameters in `request` that the model takes, by their names; while it thinks it takes none."""
    if thinking:
        return {}
    given = {name: value for name in SAMPLING if (value := getattr(request, name)) is not None}
    return dict(list(given.items())[: most_sampling(model_id)])


def effort(request: ChatRequest, model_id: str, *, forced: bool) -> str:
    """How hard the model is to think; "" where nothing is said, or cannot be, as while it is forced to use a tool."""
    wanted = {"minimal": "low"}.get(request.reasoning_effort or "", request.reasoning_effort or "")
    if wanted in {"", "none"}:
        return ""
    if thinks_adaptively(model_id):
        return wanted if not forced and wanted in {"low", "medium", "high", "xhigh", "max"} else ""
    return wanted if effort_field(model_id) and wanted in {"low", "medium", "high"} else ""


def adaptive_thinking(effort: str) -> dict[str, Any]:
    """How Anthropic's models are told."""
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
