"""What the platform's retrieval pool is told with each call: it serves any tenant's, and holds nothing itself."""

import orjson

from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.room import Room
from loam_shared.contracts.retrieval import Serving
from loam_shared.errors import NotFoundError

_READ_BY_RETRIEVAL = ("embedding", "retrieval", "generation")


async def serving_part(room: Room, pipeline: PipelineId, endpoint: str) -> Serving | None:
    """What goes along to `endpoint`; None unless that is the pool, for a tenant's login is told to nobody else.

    Raises NotFoundError, and UnavailableError where no login of the tenant's is held here.
    """
    if endpoint != room.settings.retrieval_pool_url:
        return None
    row = await room.pool.fetchrow(_SERVED, *pipeline)
    if row is None:
        raise NotFoundError(f"there is no pipeline {pipeline.name}", param="name")
    spec = orjson.loads(row["spec"])
    read = {part: spec[part] for part in _READ_BY_RETRIEVAL if part in spec}
    return Serving(uid=row["uid"], spec=read, storage=await room.storage.grant(pipeline.tenant))


_SERVED = (
    "SELECT uid, spec::text AS spec FROM pipelines WHERE tenant = $1 AND name = $2 AND NOT purging AND uid IS NOT NULL"
)
