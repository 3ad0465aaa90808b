"""The gateway's admin API, spoken to the letter of `loam_shared.contracts.admin`."""

from pathlib import Path
from typing import Literal, TypeVar

import aiohttp
import orjson
from pydantic import BaseModel

from loam_shared import errors
from loam_shared.contracts import Wire
from loam_shared.contracts.admin import (
    KeyPut,
    ModelPut,
    PipelinePut,
    PipelineState,
    Purge,
    States,
    TenantPut,
    TenantState,
)
from loam_shared.contracts.templates import TemplatesPut

Answer = TypeVar("Answer", bound=BaseModel)

_SECONDS = 30
_BY_CODE = {
    kind.code: kind
    for kind in (
        errors.InvalidRequestError,
        errors.InvalidApiKeyError,
        errors.ForbiddenError,
        errors.NotFoundError,
        errors.ConflictError,
        errors.IdempotencyConflictError,
        errors.ModelNotPricedError,
        errors.TooLargeError,
    )
}


class GatewayAdmin:
    """A client of the admin listener. Every call raises the LoamError that the gateway answers with.

    UnavailableError stands for every failure to get an answer, so that the caller waits and tries again.
    """

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url.rstrip("/") + "/admin/v1"
        self._token_file = token_file
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()

    async def put_model(self, name: str, model: ModelPut) -> None:
        """Make the model what the ModelRoute says."""
        await self._call("PUT", f"/models/{name}", model)

    async def delete_model(self, name: str) -> None:
        """Forget the model."""
        await self._delete(f"/models/{name}")

    async def put_tenant(self, tenant: str, put: TenantPut) -> TenantState:
        """Make the tenant what its manifest says. ConflictError: the name's data is another Tenant's."""
        return TenantState.model_validate_json(await self._call("PUT", f"/tenants/{tenant}", put))

    async def delete_tenant(self, tenant: str, uid: str, policy: Literal["Retain", "Delete"]) -> bool:
        """Purge the tenant; False asks for the same again a little later."""
        return await self._purge(f"/tenants/{tenant}?uid={uid}&policy={policy}")

    async def put_templates(self, tenant: str, put: TemplatesPut) -> None:
        """Make these all the prompt templates that the tenant has of its own."""
        await self._call("PUT", f"/tenants/{tenant}/templates", put)

    async def put_key(self, tenant: str, key_id: str, put: KeyPut) -> None:
        """Make these hashes open what `put` says. ConflictError: a hash is another key's."""
        await self._call("PUT", f"/tenants/{tenant}/keys/{key_id}", put)

    async def delete_key(self, tenant: str, key_id: str) -> None:
        """Revoke the key."""
        await self._delete(f"/tenants/{tenant}/keys/{key_id}")

    async def put_pipeline(self, tenant: str, name: str, put: PipelinePut) -> PipelineState:
        """Make the pipeline what its manifest says."""
        answer = await self._call("PUT", f"/tenants/{tenant}/pipelines/{name}", put)
        return PipelineState.model_validate_json(answer)

    async def delete_pipeline(self, tenant: str, name: str, uid: str) -> bool:
        """Remove the pipeline and its documents; False asks for the same again a little later."""
        return await self._purge(f"/tenants/{tenant}/pipelines/{name}?uid={uid}")

    async def states(self) -> States:
        """Spend and indexing of everything."""
        return States.model_validate_json(await self._call("GET", "/states"))

    async def _purge(self, path: str) -> bool:
        answer = await self._delete(path)
        return answer is None or Purge.model_validate_json(answer).done

    async def _delete(self, path: str) -> bytes | None:
        """None when it was gone already."""
        try:
            return await self._call("DELETE", path)
        except errors.NotFoundError:
            return None

    async def _call(self, method: str, path: str, body: Wire | None = None) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))
        try:
            async with self._session.request(
                method,
                self._url + path,
                data=body.to_json() if body is not None else None,
                headers={"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"},
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise errors.UnavailableError(f"the gateway's admin listener did not answer: {error}") from error
        if response.status >= 400:
            raise _error(response.status, content)
        return content

    def _token(self) -> str:
        """Read for every call: a projected token changes about once an hour."""
        return self._token_file.read_text().strip()


def _error(status: int, content: bytes) -> errors.LoamError:
    try:
        body = orjson.loads(content)["error"]
        code, message = body["code"], body["message"]
    except (ValueError, KeyError, TypeError):
        code, message = "", f"the gateway answered {status}: {content[:200].decode(errors='replace')}"
    return _BY_CODE.get(code, errors.UnavailableError)(message)
