"""The dialect of each provider."""

from collections.abc import Mapping

from loam_gateway.completions.converse import converse
from loam_gateway.completions.dialect import Dialect

DIALECTS: Mapping[str, Dialect] = {"Bedrock": converse}
