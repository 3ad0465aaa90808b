"""The gateway's internal listener, as a worker speaks it."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import stamina
from numpy.typing import NDArray

from loam_ingestion.errors import GatewayError, LeaseLostError
from loam_shared.contracts import Wire
from loam_shared.contracts.internal import Claim, Commit, Inventory, Register, Registered, Renew, Work

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]


class Gateway:
    """One pipeline's view of the gateway. The key is read for each call, because keys rotate."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key_file: Path, pipeline: str) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/internal/v1"
        self._work = f"{self._url}/pipelines/{pipeline}/work"
        self._key_file = key_file

    async def claim(self, claim: Claim) -> Work | None:
        """Work under a fresh lease, or None when none came within the claim's waiting time. Raises GatewayError."""
        body = await self._post(f"{self._work}/claim", claim, within=claim.wait_seconds + 15)
        return Work.model_validate_json(body) if body else None

    async def renew(self, epoch: int) -> None:
        """Raises LeaseLostError and GatewayError."""
        await self._leased(f"{self._work}/renew", Renew(epoch=epoch))

    async def register(self, listing: Register) -> Registered:
        """Raises LeaseLostError and GatewayError."""
        return Registered.model_validate_json(await self._leased(f"{self._work}/register", listing))

    async def inventory(self, epoch: int) -> Inventory:
        """What the version being built has to hold. Raises LeaseLostError and GatewayError."""
        return Inventory.model_validate_json(await self._leased(f"{self._work}/inventory", Renew(epoch=epoch)))

    async def commit(self, commit: Commit) -> None:
        """Repeated while the gateway is away, which is harmless: a commit that got through finds nothing left to do.

        Raises LeaseLostError and GatewayError.
        """
        await self._leased(f"{self._work}/commit", commit)

    async def embed(self, texts: Sequence[str], model: str, dimensions: int) -> Vectors:
        """One row per text. Raises GatewayError."""
        request = {"model": model, "input": list(texts), "dimensions": dimensions, "encoding_format": "base64"}
        for attempt in stamina.retry_context(on=_is_passing, attempts=4, timeout=120):
            with attempt:
                body = await self._post(f"{self._url}/embeddings", request, within=120)
        rows = sorted(orjson.loads(body)["data"], key=lambda row: row["index"])
        return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])

    async def _leased(self, url: str, message: Wire) -> bytes:
        try:
            for attempt in stamina.retry_context(on=_is_passing, attempts=5, timeout=20):
                with attempt:
                    body = await self._post(url, message, within=15)
        except GatewayError as error:
            if error.status == 409:
                raise LeaseLostError(str(error)) from error
            raise
        return body

    async def _post(self, url: str, message: Wire | dict[str, Any], *, within: float) -> bytes:
        data = message.to_json().encode() if isinstance(message, Wire) else orjson.dumps(message)
        headers = {
            "authorization": f"Bearer {self._key_file.read_text().strip()}",
            "content-type": "application/json",
        }
        limit = aiohttp.ClientTimeout(total=within)
        try:
            async with self._session.post(url, data=data, headers=headers, timeout=limit) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise GatewayError(f"the gateway cannot be reached: {error or type(error).__name__}") from error
        if response.status >= 400:
            raise GatewayError(_message(body, response.status), status=response.status)
        return body


def _is_passing(error: Exception) -> bool:
    # A budget opens again in hours or days: that is for the job's next attempt, not for this call's.
    return isinstance(error, GatewayError) and error.passing and error.status != 402


def _message(body: bytes, status: int) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"the gateway answered {status}"
