"""Which tool to call for a request, if any."""

import re
from collections import Counter

from loam_bedrock_local.prompt import Prompt, Tool
from loam_bedrock_local.schema import read
from loam_bedrock_local.words import terms

_WORD_IN_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# They stand in the description of every other tool and say nothing about what it is for.
_IDLE = frozenset(terms("get return returns tool function call use user given value result string number object"))
_LEAST = 2


def choose(prompt: Prompt) -> Tool | None:
    """The tool that the request forces, or else the one that its question is about and that was not called yet."""
    if not prompt.tools:
        return None
    if forced := prompt.tool_choice.get("tool"):
        return next((tool for tool in prompt.tools if tool.name == forced["name"]), None)
    fresh = [tool for tool in prompt.tools if tool.name not in prompt.tools_called]
    must = "any" in prompt.tool_choice
    candidates = fresh or (list(prompt.tools) if must else [])
    scores = {tool.name: _relevance(tool, prompt.question) for tool in candidates}
    best = max(candidates, key=lambda tool: scores[tool.name], default=None)
    return best if best and (must or scores[best.name] >= _LEAST) else None


def _relevance(tool: Tool, question: str) -> int:
    """Words of the question that the tool is about: two points for one in its name, one for one elsewhere."""
    if tool.name in question:
        return 2 * _LEAST
    asked = set(terms(question)) - _IDLE
    named = set(terms(_spelled(tool.name)))
    properties = " ".join(_spelled(name) for name, _, _ in read(tool.schema).members)
    described = set(terms(f"{tool.description} {properties}"))
    points = Counter(dict.fromkeys(asked & named, 2)) | Counter(asked & described)
    return points.total()


def _spelled(name: str) -> str:
    """`get_current_weather` and `getCurrentWeather` as words."""
    return " ".join(_WORD_IN_NAME.findall(name))
