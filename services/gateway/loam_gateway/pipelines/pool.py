"""What the platform's retrieval pool is told with each call: it serves any tenant's, and holds nothing itself."""

from loam_gateway.pipelines import catalog
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.pipelines.room import Room
from loam_shared.contracts.retrieval import Serving

_READ_BY_RETRIEVAL = ("embedding", "retrieval", "generation")


async def serving_part(room: Room, pipeline: PipelineId, endpoint: str) -> Serving | None:
    """What goes along to `endpoint`; None unless that is the pool, for a tenant's login is told to nobody else.

    Raises NotFoundError, and UnavailableError where no login of the tenant's is held here.
    """
    if endpoint != room.settings.retrieval_pool_url:
        return None
    spec = await catalog.spec(room.pool, pipeline)
    grant = await room.storage.grant(pipeline.tenant)
    return Serving(spec={part: spec[part] for part in _READ_BY_RETRIEVAL if part in spec}, storage=grant)
