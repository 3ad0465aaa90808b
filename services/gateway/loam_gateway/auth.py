"""Who is calling: one dependency for each kind of credential, and each listener takes only its own.

Routes say what they need in their signature: ``caller: Annotated[Principal, Depends(caller_with("rag:query"))]``.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from loam_gateway.directory.model import Principal
from loam_gateway.state import Deps
from loam_shared.errors import ForbiddenError, InvalidApiKeyError

Authenticator = Callable[[Request, Deps], Awaitable[Principal]]


async def public_caller(request: Request, deps: Deps) -> Principal:
    """The owner of the API key in ``Authorization: Bearer``.

    Raises InvalidApiKeyError for a key that is unknown, expired, revoked or a workload's, and ForbiddenError for a
    suspended tenant.
    """
    raise InvalidApiKeyError("no API key was given; send it as Authorization: Bearer …")


async def internal_caller(request: Request, deps: Deps) -> Principal:
    """The caller in a caller token, or the workload whose key it is. Raises InvalidApiKeyError, ForbiddenError."""
    raise InvalidApiKeyError("no credential was given; send a caller token or a workload's key")


async def workload(caller: Annotated[Principal, Depends(internal_caller)], name: str) -> Principal:
    """The workload of the pipeline `name` in the path: nothing else may touch its work. Raises ForbiddenError."""
    if caller.workload != name:
        raise ForbiddenError(f"this needs the workload key of the pipeline {name}")
    return caller


async def operator(request: Request, deps: Deps) -> None:
    """Lets the operator pass, by the admin token. Raises InvalidApiKeyError."""
    raise InvalidApiKeyError("the admin API needs the admin token as Authorization: Bearer …")


def caller_with(scope: str) -> Authenticator:
    """A dependency that gives the public caller if its key has `scope`. Raises ForbiddenError that names the scope."""

    async def scoped(request: Request, deps: Deps) -> Principal:
        caller = await public_caller(request, deps)
        if scope not in caller.scopes:
            raise ForbiddenError(f'this key lacks the scope "{scope}"')
        return caller

    return scoped
