"""How a tenant's pipelines are, as their users see them."""

from typing import Literal

from loam_gateway.adapters.postgres import Pool
from loam_gateway.pipelines import catalog, documents
from loam_gateway.pipelines.model import PipelineId
from loam_shared.contracts import Wire
from loam_shared.contracts.admin import PipelineState

_MOST_FAILURES = 20


class PipelineOverview(PipelineState):
    """How far a pipeline is. `sync` says whether a look at its sources waits for a worker or is under way."""

    name: str
    sync: Literal["Waiting", "Running"] | None = None


class FailedDocument(Wire):
    """A document that could not be read, and why."""

    document_id: str
    name: str
    error: str


class PipelineDetails(PipelineOverview):
    """A pipeline with its documents counted by status, and those that failed last."""

    by_status: dict[str, int]
    failures: tuple[FailedDocument, ...]


async def overviews(pool: Pool, tenant: str) -> list[PipelineOverview]:
    """The tenant's pipelines, by name."""
    syncs = await _syncs(pool, tenant)
    states = await catalog.states(pool, tenant)
    names = ((key.partition("/")[2], state) for key, state in sorted(states.items()))
    return [PipelineOverview(name=name, sync=syncs.get(name), **dict(state)) for name, state in names]


async def details(pool: Pool, pipeline: PipelineId) -> PipelineDetails:
    """One pipeline. Raises NotFoundError."""
    syncs = await _syncs(pool, pipeline.tenant)
    state = await catalog.state(pool, pipeline)
    return PipelineDetails(
        name=pipeline.name,
        sync=syncs.get(pipeline.name),
        by_status=await documents.by_status(pool, pipeline),
        failures=tuple(FailedDocument(**dict(row)) for row in await pool.fetch(_FAILURES, *pipeline, _MOST_FAILURES)),
        **dict(state),
    )


async def _syncs(pool: Pool, tenant: str) -> dict[str, Literal["Waiting", "Running"]]:
    """Which pipelines have a sync. To be read before their documents: whoever sees none then sees all that it found."""
    return {row["pipeline"]: row["sync"] for row in await pool.fetch(_SYNCS, tenant)}


_SYNCS = """
SELECT p.name AS pipeline,
       CASE WHEN p.sync_started_at IS NOT NULL OR bool_or(j.epoch = p.epoch AND p.lease_expires_at > now())
            THEN 'Running' ELSE 'Waiting' END AS sync
FROM pipelines p LEFT JOIN jobs j ON (j.tenant, j.pipeline, j.kind) = (p.tenant, p.name, 'Sync')
WHERE p.tenant = $1 AND (p.sync_started_at IS NOT NULL OR j.id IS NOT NULL) GROUP BY p.name, p.sync_started_at
"""
_FAILURES = """
SELECT document_id, name, coalesce(error, 'no reason was given') AS error FROM documents
WHERE tenant = $1 AND pipeline = $2 AND status = 'Failed' ORDER BY updated_at DESC, name LIMIT $3
"""
