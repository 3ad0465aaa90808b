"""What an API key may be allowed to do: one list for manifests, the gateway and its API."""

from typing import Literal, get_args

Scope = Literal[
    "ai:complete",
    "ai:embed",
    "rag:query",
    "rag:write",
    "agent:run",
    "agent:approve",
    "usage:read",
    "budget:write",
    "keys:write",
]
SCOPES: frozenset[str] = frozenset(get_args(Scope))
