"""What serves a call: the one pipeline of a tenant's own pod or, in the platform's pool, whichever the call is about.

Both go the same way. A pod of a pipeline's own knows the pipeline's spec and storage from its configuration; the pool
is told them with each call, by the gateway, and believes nothing that the caller token does not name.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Gauge
from pydantic import ValidationError

from loam_retrieval.adapters.databases import Databases
from loam_retrieval.adapters.gateway import Gateway
from loam_retrieval.chat import Answers
from loam_retrieval.pipeline import Pipeline
from loam_retrieval.search import Search
from loam_retrieval.settings import Settings
from loam_shared.contracts.internal import IndexPointer
from loam_shared.contracts.retrieval import Chat, Query, Serving
from loam_shared.credentials import Caller
from loam_shared.errors import ForbiddenError, InvalidRequestError, UnavailableError
from loam_shared.index import tenant_prefix

_OPEN = Gauge("loam_retrieval_open_pipelines", "Pipelines whose index is kept open.")


@dataclass(frozen=True)
class Served:
    """A pipeline with its index open."""

    search: Search
    answers: Answers


@dataclass
class _Open:
    served: Served
    used_at: float


class Pipelines:
    """Pipelines kept open by tenant, name, uid, spec and storage login, so that nothing is shared between two of them.

    `own` is what a pod of a pipeline's own serves, and None in the pool. Beyond `settings.open_pipelines`, and after
    `settings.idle_seconds` without a question, a pipeline is let go.
    """

    def __init__(
        self, settings: Settings, gateway: Gateway, own: Serving | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._own = own
        self._now = now
        self._databases = Databases(settings.index_cache_mib, settings.metadata_cache_mib)
        self._open: OrderedDict[tuple[str, str, str], _Open] = OrderedDict()

    async def of(self, caller: Caller, asked: Query | Chat) -> Served:
        """What serves the caller's pipeline. Raises ForbiddenError for what is not the caller's."""
        tenant, name = caller.tenant, caller.pipeline or ""
        _check_table(name, asked.index)
        serving = self._own or _told(caller, asked.serving)
        key = (tenant, name, serving.digest)
        if key not in self._open:
            opened = _Open(await self._served(serving), self._now())
            self._open.setdefault(key, opened)
        found = self._open[key]
        found.used_at = self._now()
        self._open.move_to_end(key)
        self.let_go()
        return found.served

    def let_go(self) -> None:
        """Forget pipelines beyond the limits, the longest unused first."""
        oldest_kept = self._now() - self._settings.idle_seconds
        while self._open and (
            len(self._open) > self._settings.open_pipelines or next(iter(self._open.values())).used_at < oldest_kept
        ):
            self._open.popitem(last=False)
        _OPEN.set(len(self._open))

    async def keep_house(self) -> None:
        """Let go of idle pipelines until cancelled, also while nobody asks anything."""
        while True:
            await asyncio.sleep(self._settings.idle_seconds / 4)
            self.let_go()

    async def _served(self, serving: Serving) -> Served:
        try:
            pipeline = Pipeline.model_validate(serving.spec)
        except ValidationError as error:
            raise InvalidRequestError(f"serving.spec: {error.errors()[0]['msg']}", param="serving.spec") from error
        search = Search(self._settings, pipeline, self._gateway, await self._databases.index(serving.storage))
        return Served(search, Answers(self._settings, pipeline, self._gateway, search))


def _told(caller: Caller, serving: Serving | None) -> Serving:
    """What the gateway said with the call. Raises ForbiddenError when it is not of the caller's tenant."""
    if serving is None:
        raise UnavailableError(
            "this is the platform's retrieval pool, and the gateway does not know it: its LOAM_RETRIEVAL_POOL_URL must "
            "be the operator's LOAM_PLATFORM__RETRIEVAL_POOL_URL"
        )
    if caller.serving != serving.digest:
        raise ForbiddenError("serving: the caller token was made for another one", param="serving")
    storage = serving.storage
    if storage.prefix != tenant_prefix(caller.tenant):
        raise ForbiddenError("serving.storage.prefix is not the caller's tenant's", param="serving.storage.prefix")
    if not (storage.access_key_id and storage.secret_access_key):
        # The object store would look for a login of this process, which serves everybody.
        raise ForbiddenError("serving.storage has no login: the pool has no identity of its own", param="serving")
    return serving


def _check_table(pipeline: str, index: IndexPointer | None) -> None:
    """A tenant's database holds the tables of all its pipelines; each reads its own."""
    if index is not None and not re.fullmatch(rf"{re.escape(pipeline)}-v[0-9]+", index.table):
        raise ForbiddenError(f'index.table is no table of the pipeline "{pipeline}"', param="index.table")
