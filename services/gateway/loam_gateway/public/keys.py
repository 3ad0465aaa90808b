"""``/v1/auth/keys``: callers make, list, rotate and revoke keys, within what their own key may do and spend."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, Field

from loam_gateway import idempotency
from loam_gateway.auth import caller_with
from loam_gateway.completions.request import parse
from loam_gateway.directory import changes
from loam_gateway.directory.caps import nanos_of
from loam_gateway.directory.changes import Act
from loam_gateway.directory.keys import (
    MADE_HERE,
    Key,
    check_made_by,
    check_scopes,
    check_still_good,
    check_within,
    keys,
    makers_of_next,
    own_key,
)
from loam_gateway.directory.model import Principal
from loam_gateway.metering.desk import claim_of
from loam_gateway.state import Deps
from loam_shared.contracts import Wire
from loam_shared.contracts.admin import KeyHash, KeyPut
from loam_shared.credentials import hash_api_key, new_api_key
from loam_shared.http import request_id_of
from loam_shared.money import format_usd
from loam_shared.scopes import SCOPES

router = APIRouter(prefix="/v1/auth/keys")
# As in ApiKey manifests.
_USER = r"^[-._@:a-zA-Z0-9]+$"
KeyWriter = Annotated[Principal, Depends(caller_with("keys:write"))]


class NewKey(Wire):
    """What a new key may do and spend; what is left out is as with the caller's own key, but for the scopes.

    Whatever it spends counts under the caps of the caller's own key as well.
    """

    name: str = Field(min_length=1, max_length=128)
    scopes: frozenset[str] = Field(min_length=1)
    monthly_budget: str | None = None
    daily_budget: str | None = None
    expires_at: AwareDatetime | None = None
    user: str | None = Field(default=None, max_length=128, pattern=_USER)


@router.post("")
async def create(request: Request, deps: Deps, caller: KeyWriter) -> Response:
    """Make a key. Its secret is in this answer and nowhere else."""
    makers = await makers_of_next(deps.pool, caller)
    key, secret = _wanted(parse(NewKey, await request.body()), caller, makers), new_api_key()
    answer = orjson.dumps({"apiKey": secret, "keyId": key.key_id})
    put = KeyPut(
        name=key.name,
        hashes=(KeyHash(sha256=hash_api_key(secret)),),
        scopes=tuple(sorted(key.scopes)),
        monthly_usd=_usd(key.monthly_cap),
        daily_usd=_usd(key.daily_cap),
        user=key.user,
        expires_at=key.expires_at,
    )
    claim = await claim_of(request)
    async with changes.changing(deps.pool) as connection:
        await check_still_good(connection, caller)
        given = claim and await idempotency.claim(connection, deps.vault, caller, claim, answer)
        if given is None:
            act = _act(request, caller)
            await changes.put_key(connection, caller.tenant, key.key_id, put, act, made_by=caller.key_id)
    return _json(given or answer, status=201)


@router.get("")
async def listing(deps: Deps, caller: KeyWriter) -> Response:
    """The tenant's keys, without their secrets."""
    return _json({"keys": [_shown(key) for key in await keys(deps.pool, caller.tenant)]})


@router.delete("/{key_id}", status_code=204)
async def revoke(key_id: str, request: Request, deps: Deps, caller: KeyWriter) -> None:
    """Revoke a key and all that were made with it: they are refused everywhere within a second."""
    check_made_by(caller, await own_key(deps.pool, caller.tenant, key_id))
    await changes.revoke_key(deps.pool, caller.tenant, key_id, _act(request, caller))
    deps.directory.forget()


@router.post("/{key_id}/rotate")
async def rotate(
    key_id: str,
    request: Request,
    deps: Deps,
    caller: KeyWriter,
    overlap_hours: Annotated[float, Query(alias="overlapHours", ge=0, le=24 * 30)] = 24,
) -> Response:
    """Give a key a new secret; the old one works on for the overlap."""
    key = await own_key(deps.pool, caller.tenant, key_id)
    check_made_by(caller, key)
    check_within(caller, key)
    secret, until = new_api_key(), datetime.now(UTC) + timedelta(hours=overlap_hours)
    answer = orjson.dumps({"apiKey": secret, "keyId": key_id, "previousExpiresAt": until})
    claim = await claim_of(request)
    async with changes.changing(deps.pool) as connection:
        await check_still_good(connection, caller)
        given = claim and await idempotency.claim(connection, deps.vault, caller, claim, answer)
        if given is None:
            act = _act(request, caller)
            await changes.rotate_key(connection, caller.tenant, key_id, hash_api_key(secret), until, act)
    deps.directory.forget()
    return _json(given or answer)


def _wanted(new: NewKey, caller: Principal, makers: tuple[str, ...]) -> Key:
    check_scopes(new.scopes, SCOPES)
    key = Key(
        key_id=MADE_HERE + secrets.token_hex(12),
        name=new.name,
        scopes=new.scopes,
        user=new.user or caller.user,
        monthly_cap=caller.monthly_cap if new.monthly_budget is None else nanos_of("monthlyBudget", new.monthly_budget),
        daily_cap=caller.daily_cap if new.daily_budget is None else nanos_of("dailyBudget", new.daily_budget),
        expires_at=new.expires_at or caller.expires_at,
        makers=makers,
    )
    check_within(caller, key)
    return key


def _shown(key: Key) -> dict[str, Any]:
    return {
        "keyId": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "user": key.user,
        "monthlyBudget": _usd(key.monthly_cap),
        "dailyBudget": _usd(key.daily_cap),
        "expiresAt": key.expires_at,
        "createdAt": key.created_at,
        "madeBy": key.makers[0] if key.makers else None,
        "managedBy": "ApiKey manifest" if key.from_manifest else "API",
    }


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else format_usd(nanos)


def _act(request: Request, caller: Principal) -> Act:
    return Act(f"key {caller.key_id}", request_id_of(request))


def _json(body: dict[str, Any] | bytes, status: int = 200) -> Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(content, status_code=status, media_type="application/json")
