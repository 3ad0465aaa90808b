"""Who calls: caller tokens, verified by the gateway's public keys."""

import asyncio
import time

from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact

from loam_retrieval.adapters.gateway import Gateway
from loam_shared.credentials import Caller, InvalidCallerTokenError, verify_caller
from loam_shared.errors import ForbiddenError, InvalidApiKeyError

SERVICE = "retrieval"
_FRESH_SECONDS = 600.0
# A token with a made-up key id must not make a call to the gateway each.
_PAUSE_SECONDS = 2.0


class Doorkeeper:
    """Lets in calls that carry a caller token for retrieval: that of one tenant's pipeline, or (None) of any."""

    def __init__(self, gateway: Gateway, tenant: str | None, pipeline: str | None) -> None:
        self._gateway = gateway
        self._tenant = tenant
        self._pipeline = pipeline
        self._keys = KeySet([])
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def admit(self, token: str) -> Caller:
        """Raises InvalidApiKeyError, ForbiddenError for another pipeline's token, UnavailableError without keys."""
        try:
            keys = await self._keys_for(_key_id(token))
            caller = verify_caller(token, keys=keys, service=SERVICE, tenant=self._tenant)
        except InvalidCallerTokenError as error:
            raise InvalidApiKeyError(str(error)) from error
        of_another = self._tenant not in {None, caller.tenant} or self._pipeline not in {None, caller.pipeline}
        if caller.pipeline is None or of_another:
            raise ForbiddenError("the caller token is for another pipeline")
        return caller

    async def _keys_for(self, key_id: str | None) -> KeySet:
        async with self._fetching:
            age = time.monotonic() - self._fetched_at
            known = any(key.kid == key_id for key in self._keys.keys)
            if age > _FRESH_SECONDS or (not known and age > _PAUSE_SECONDS):
                self._keys = KeySet.import_key_set(await self._gateway.jwks())  # type: ignore[arg-type]  # plain JSON
                self._fetched_at = time.monotonic()
            return self._keys


def _key_id(token: str) -> str | None:
    try:
        return extract_compact(token.encode()).headers().get("kid")
    except (JoseError, ValueError) as error:
        raise InvalidCallerTokenError("this is no caller token") from error
