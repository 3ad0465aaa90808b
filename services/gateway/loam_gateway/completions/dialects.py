"""The dialect of each provider."""

from collections.abc import Mapping

from loam_gateway.completions.anthropic import anthropic
from loam_gateway.completions.converse import converse
from loam_gateway.completions.dialect import Dialect
from loam_gateway.completions.openai import openai

DIALECTS: Mapping[str, Dialect] = {"Bedrock": converse, "Anthropic": anthropic, "OpenAI": openai}
