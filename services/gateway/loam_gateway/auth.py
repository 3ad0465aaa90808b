"""Who is calling: one dependency for each kind of credential, and each listener takes only its own.

Routes say what they need in their signature: ``caller: Annotated[Principal, Depends(caller_with("rag:query"))]``.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from joserfc.jwk import KeySet
from starlette.requests import HTTPConnection

from loam_gateway.directory.model import Principal, Tenant
from loam_gateway.state import Deps, State
from loam_shared.credentials import KEY_PREFIX, InvalidCallerTokenError, hash_api_key, verify_caller
from loam_shared.errors import ForbiddenError, InvalidApiKeyError


async def public_caller(request: Request, deps: Deps) -> Principal:
    """The owner of the API key in ``Authorization: Bearer``.

    Raises InvalidApiKeyError for a key that is unknown, expired, revoked or a workload's, and ForbiddenError for a
    suspended tenant.
    """
    return await key_owner(key_digest(request), deps)


def key_digest(connection: HTTPConnection) -> str:
    """The SHA-256 of the API key in ``Authorization: Bearer``. Raises InvalidApiKeyError when there is none."""
    return hash_api_key(_bearer(connection, "an API key"))


async def key_owner(digest: str, deps: State) -> Principal:
    """The caller whose API key has that SHA-256. Raises as `public_caller` does."""
    caller = await _owner(digest, deps)
    if caller.workload is not None:
        raise InvalidApiKeyError("this key belongs to a pipeline's own pods and opens the internal listener only")
    return caller


async def internal_caller(request: Request, deps: Deps) -> Principal:
    """The caller in a caller token, or the workload whose key it is. Raises InvalidApiKeyError, ForbiddenError."""
    credential = _bearer(request, "a caller token or a workload's key")
    if not credential.startswith(KEY_PREFIX):
        caller = _token_bearer(credential, deps)
        await tenant_of(caller, deps)
        return caller
    caller = await _owner(hash_api_key(credential), deps)
    if caller.workload is None:
        raise InvalidApiKeyError("the internal listener takes caller tokens and workloads' keys, no API keys")
    return caller


async def workload(caller: Annotated[Principal, Depends(internal_caller)], name: str) -> Principal:
    """The workload of the pipeline `name` in the path: nothing else may touch its work. Raises ForbiddenError."""
    if caller.workload != name:
        raise ForbiddenError(f"this needs the workload key of the pipeline {name}")
    return caller


async def operator(request: Request, deps: Deps) -> None:
    """Lets the operator pass, by the admin token. Raises InvalidApiKeyError."""
    if not hmac.compare_digest(_bearer(request, "the admin token").encode(), deps.admin_token):
        raise InvalidApiKeyError("this is not the admin token")


def caller_with(*scopes: str) -> Callable[[Request, Deps], Awaitable[Principal]]:
    """A dependency that gives the public caller if its key has all `scopes`. Raises ForbiddenError that names one."""

    async def scoped(request: Request, deps: Deps) -> Principal:
        caller = await public_caller(request, deps)
        for scope in scopes:
            check_scope(caller, scope)
        return caller

    return scoped


def check_scope(caller: Principal, scope: str) -> None:
    """Lets pass a caller whose key has the scope. Raises ForbiddenError."""
    if scope not in caller.scopes:
        raise ForbiddenError(f'this key lacks the scope "{scope}"')


async def tenant_of(caller: Principal, deps: State) -> Tenant:
    """The caller's tenant. Raises ForbiddenError when it is suspended, InvalidApiKeyError when it is gone."""
    tenant = await deps.directory.tenant(caller.tenant)
    if tenant is None:
        raise InvalidApiKeyError("the tenant of this credential is gone")
    if tenant.suspended:
        raise ForbiddenError(f"the tenant {tenant.name} is suspended")
    return tenant


def _bearer(connection: HTTPConnection, what: str) -> str:
    scheme, _, credential = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise InvalidApiKeyError(f"send {what} as Authorization: Bearer …")
    return credential.strip()


async def _owner(digest: str, deps: State) -> Principal:
    caller = await deps.directory.principal(digest)
    if caller is None:
        raise InvalidApiKeyError("the API key is unknown, expired or revoked")
    await tenant_of(caller, deps)
    return caller


def _token_bearer(token: str, deps: State) -> Principal:
    try:
        caller = verify_caller(token, keys=KeySet([deps.signing_key]))
    except InvalidCallerTokenError as error:
        raise InvalidApiKeyError(str(error)) from error
    return Principal(
        tenant=caller.tenant,
        key_id=caller.key_id,
        user=caller.user,
        scopes=frozenset(caller.scopes),
        root_request_id=caller.request_id,
        pipeline=caller.pipeline,
        agent=caller.agent,
        run=caller.run,
    )
