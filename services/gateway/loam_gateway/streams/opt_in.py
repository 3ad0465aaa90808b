"""Resuming as requests ask for it: by the header ``x-loam-resume: true``."""

from fastapi import Request, Response

from loam_gateway.directory.model import Principal
from loam_gateway.state import State
from loam_gateway.streams.making import Make
from loam_shared.http import request_id_of

HEADER = "x-loam-resume"


async def resumable(deps: State, request: Request, caller: Principal, make: Make) -> Response:
    """The answer that `make` makes; one that may be resumed where the caller asks for it. Raises what `make` raises."""
    if request.headers.get(HEADER) != "true":
        return await make()
    return await deps.streams.begin(owner_of(caller), make, request_id_of(request))


def owner_of(caller: Principal) -> str:
    """Whose streams are the caller's."""
    return f"{caller.tenant}/{caller.key_id}"
