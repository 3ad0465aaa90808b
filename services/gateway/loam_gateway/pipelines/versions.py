"""Versions of a pipeline's index: the one that serves, one that may be built beside it, and those kept to go back to.

A version is made by one recipe (chunking and embedding). Another recipe in the manifest has another version built from
the same documents; that one takes over once it holds all of them and was checked. Every change of a document goes into
both meanwhile. A version that no longer serves is not written to; to go back to it, it is built again from where it
stopped, so that nothing that has gone from the sources since can come back.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import asyncpg

from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.pipelines import catalog, publication
from loam_gateway.pipelines.model import PipelineId, recipe_of
from loam_shared.contracts import Wire
from loam_shared.contracts.admin import Building
from loam_shared.contracts.internal import IndexPointer, Recipe, Target
from loam_shared.errors import NotFoundError

State = Literal["Building", "Ready", "Serving", "Rejected"]


class IndexVersion(Wire):
    """One version of a pipeline's index; `current` is the one that answers come from.

    `progress` tells how far one that is being built is, `reason` why a Rejected one was not put into service.
    """

    version: int
    state: State
    current: bool
    chunks: int
    recipe: Recipe
    progress: Building | None = None
    reason: str | None = None
    created_at: datetime
    updated_at: datetime


async def versions(pool: Pool, pipeline: PipelineId) -> list[IndexVersion]:
    """The versions that are kept, newest first. Raises NotFoundError."""
    await catalog.spec(pool, pipeline)
    return [_version(row) for row in await pool.fetch(_VERSIONS, *pipeline)]


async def rollback(pool: Pool, pipeline: PipelineId, version: int) -> IndexVersion:
    """Answer from `version` as soon as it holds what the sources hold: at once where nothing changed since it served.

    The manifest's own recipe is declined until it changes. Raises NotFoundError.
    """
    async with pool.acquire() as connection, connection.transaction():
        row = await catalog.locked(connection, pipeline)
        found = await _one(connection, pipeline, version)
        if found.state != "Building":
            await connection.execute(_DECLINE, *pipeline)
            await _drop_building(connection, pipeline)
        if found.state in {"Ready", "Rejected"}:
            await _go_to(connection, pipeline, row, found, chosen=True)
        return await _one(connection, pipeline, version)


async def follow(connection: Connection, pipeline: PipelineId, row: asyncpg.Record, spec: Mapping[str, Any]) -> None:
    """Have an index by the manifest's recipe: build it, go back to it, or leave off what is no longer asked for.

    The caller holds the pipeline's `row`. Raises InvalidRequestError for a spec without a recipe.
    """
    wanted = recipe_of(spec)
    held = [_version(one) for one in await connection.fetch(_VERSIONS, *pipeline)]
    serving = next((one for one in held if one.current), None)
    if serving is None:
        await connection.execute(_MAKE_CURRENT, *pipeline, await _add(connection, pipeline, wanted, "Ready"))
    elif serving.recipe == wanted:
        await _drop_building(connection, pipeline)
        await connection.execute(_FORGET_DECLINED, *pipeline)
    elif row["declined_recipe"] is None or Recipe.model_validate_json(row["declined_recipe"]) != wanted:
        await _change_to(connection, pipeline, row, wanted, held)
    await prune(connection, pipeline)


async def targets(connection: Connection, pipeline: PipelineId) -> tuple[Target, ...]:
    """The versions that every change of a document goes into: the one that serves, then the one being built."""
    return tuple(_target(row) for row in await connection.fetch(_TARGETS, *pipeline))


async def swap(connection: Connection, pipeline: PipelineId, version: int) -> None:
    """Let `version`, which holds everything, serve from now on. The caller holds the pipeline's row."""
    await connection.execute(_STEP_DOWN, *pipeline)
    await connection.execute(_TAKE_OVER, *pipeline, version)
    await connection.execute(_MAKE_CURRENT, *pipeline, version)
    await connection.execute(_PUBLISHED, *pipeline, version)
    await connection.execute(_DROP_BUILD_JOBS, *pipeline)
    await prune(connection, pipeline)


async def reject(connection: Connection, pipeline: PipelineId, reason: str) -> None:
    """Leave the version being built, if any, out of service. The caller holds the pipeline's row."""
    await connection.execute(_REJECT, *pipeline, reason)
    await connection.execute(_DROP_BUILD_JOBS, *pipeline)


async def prune(connection: Connection, pipeline: PipelineId) -> None:
    """Let go of versions beyond those that the manifest wants kept; their tables go once no reader can be at them."""
    await connection.execute(_RETIRE, *pipeline)


async def _change_to(
    connection: Connection, pipeline: PipelineId, row: asyncpg.Record, wanted: Recipe, held: list[IndexVersion]
) -> None:
    await connection.execute(_FORGET_DECLINED, *pipeline)
    same = next((one for one in held if one.recipe == wanted), None)
    if same is not None and same.state in {"Building", "Rejected"}:
        return  # It is under way, or was judged; the user may ask for it again.
    await _drop_building(connection, pipeline)
    if same is not None:
        await _go_to(connection, pipeline, row, same)
    elif await connection.fetchval(_RECOOK_EMPTY, *pipeline, wanted.to_json()):
        await _interrupt(connection, pipeline)
    else:
        await connection.execute(_RETIRE_REJECTED, *pipeline)
        await _add(connection, pipeline, wanted, "Building")
        await _begin_building(connection, pipeline)


async def _go_to(
    connection: Connection, pipeline: PipelineId, row: asyncpg.Record, found: IndexVersion, *, chosen: bool = False
) -> None:
    complete_to = await connection.fetchval(_COMPLETE_TO, *pipeline, found.version)
    if found.state == "Ready" and complete_to == row["changes"]:
        await _interrupt(connection, pipeline)
        await swap(connection, pipeline, found.version)
        return
    await connection.execute(_BUILD_ON, *pipeline, found.version, chosen)
    await connection.execute(_HOLDS_ALREADY, *pipeline, found.version, complete_to)
    await _begin_building(connection, pipeline)


async def _one(connection: Connection, pipeline: PipelineId, version: int) -> IndexVersion:
    rows = await connection.fetch(_VERSIONS, *pipeline)
    found = next((row for row in rows if row["version"] == version), None)
    if found is None:
        kept = ", ".join(str(row["version"]) for row in rows) or "none"
        raise NotFoundError(f"there is no index version {version} to go back to; kept: {kept}", param="version")
    return _version(found)


async def _add(connection: Connection, pipeline: PipelineId, recipe: Recipe, state: State) -> int:
    number: int = await connection.fetchval(_NEXT_NUMBER, *pipeline)
    await connection.execute(_ADD, *pipeline, number, f"{pipeline.name}-v{number}", recipe.to_json(), state)
    return number


async def _drop_building(connection: Connection, pipeline: PipelineId) -> None:
    """Leave off building; a version that served once is kept as it is, another one goes."""
    dropped = await connection.fetchval(_STOP_BUILDING, *pipeline)
    if dropped is not None:
        await connection.execute(_DROP_BUILD_JOBS, *pipeline)
        await _interrupt(connection, pipeline)


async def _begin_building(connection: Connection, pipeline: PipelineId) -> None:
    await _interrupt(connection, pipeline)
    await publication.queue_builds(connection, pipeline)
    await catalog.announce(connection, pipeline)


async def _interrupt(connection: Connection, pipeline: PipelineId) -> None:
    """Take the lease from whoever has it: what it writes to is about to be something else."""
    await connection.execute(_INTERRUPT, *pipeline)


def _version(row: asyncpg.Record) -> IndexVersion:
    building = row["state"] == "Building"
    progress = Building(index_version=row["version"], done=row["built"], documents=row["indexed"]) if building else None
    return IndexVersion(
        version=row["version"],
        state="Serving" if row["current"] else row["state"],
        current=row["current"],
        chunks=row["head_chunks"] if building else row["chunks"],
        recipe=Recipe.model_validate_json(row["recipe"]),
        progress=progress,
        reason=row["reason"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _target(row: asyncpg.Record) -> Target:
    recipe = Recipe.model_validate_json(row["recipe"])
    head = None
    if row["head_table_version"] is not None:
        head = IndexPointer(
            table=row["table_name"],
            table_version=row["head_table_version"],
            chunks=row["head_chunks"],
            index_version=row["version"],
            embedding=recipe.embedding,
        )
    return Target(
        index_version=row["version"],
        recipe=recipe,
        serving=row["serving"],
        chosen=row["chosen"],
        head=head,
        readable=row["readable"],
    )


_VERSIONS = """
SELECT v.version, v.state, v.chunks, v.head_chunks, v.recipe::text AS recipe, v.reason, v.created_at, v.updated_at,
       v.version IS NOT DISTINCT FROM p.index_version AS current,
       (SELECT count(indexed_change) FROM documents d WHERE (d.tenant, d.pipeline) = (v.tenant, v.pipeline)) AS indexed,
       (SELECT count(indexed_change) FROM documents d WHERE (d.tenant, d.pipeline) = (v.tenant, v.pipeline)
           AND d.built_version = v.version) AS built
FROM index_versions v JOIN pipelines p ON (p.tenant, p.name) = (v.tenant, v.pipeline)
WHERE v.tenant = $1 AND v.pipeline = $2 ORDER BY v.version DESC
"""
_TARGETS = """
SELECT v.version, v.recipe::text AS recipe, v.version = p.index_version AS serving, v.chosen, v.table_name,
       v.head_table_version, v.head_chunks,
       coalesce((SELECT min(q.table_version) FROM index_publications q
                 WHERE (q.tenant, q.pipeline, q.version) = (v.tenant, v.pipeline, v.version)),
                v.head_table_version) AS readable
FROM index_versions v JOIN pipelines p ON (p.tenant, p.name) = (v.tenant, v.pipeline)
WHERE v.tenant = $1 AND v.pipeline = $2 AND (v.version = p.index_version OR v.state = 'Building')
ORDER BY serving DESC
"""
_NEXT_NUMBER = "UPDATE pipelines SET versions = versions + 1 WHERE tenant = $1 AND name = $2 RETURNING versions"
_ADD = """
INSERT INTO index_versions (tenant, pipeline, version, table_name, recipe, state)
VALUES ($1, $2, $3, $4, $5::text::jsonb, $6)
"""
_MAKE_CURRENT = "UPDATE pipelines SET index_version = $3 WHERE tenant = $1 AND name = $2"
_DECLINE = """
UPDATE pipelines
SET declined_recipe = jsonb_build_object('chunking', spec -> 'chunking', 'embedding', spec -> 'embedding')
WHERE tenant = $1 AND name = $2
"""
_FORGET_DECLINED = "UPDATE pipelines SET declined_recipe = NULL WHERE tenant = $1 AND name = $2"
# An index that nothing was ever written to can have any recipe.
_RECOOK_EMPTY = """
UPDATE index_versions v SET recipe = $3::text::jsonb FROM pipelines p
WHERE v.tenant = $1 AND v.pipeline = $2 AND (p.tenant, p.name, p.index_version) = (v.tenant, v.pipeline, v.version)
  AND v.head_table_version IS NULL
RETURNING true
"""
_STEP_DOWN = """
UPDATE index_versions v SET complete_to = p.changes FROM pipelines p
WHERE v.tenant = $1 AND v.pipeline = $2 AND (p.tenant, p.name, p.index_version) = (v.tenant, v.pipeline, v.version)
"""
_TAKE_OVER = """
UPDATE index_versions
SET state = 'Ready', table_version = head_table_version, chunks = head_chunks, complete_to = NULL, reason = NULL,
    served_at = now(), updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND version = $3
"""
_PUBLISHED = """
INSERT INTO index_publications (tenant, pipeline, version, table_version)
SELECT tenant, pipeline, version, table_version FROM index_versions
WHERE tenant = $1 AND pipeline = $2 AND version = $3 AND table_version IS NOT NULL
ON CONFLICT (tenant, pipeline, version, table_version) DO UPDATE SET published_at = now()
"""
_DROP_BUILD_JOBS = "DELETE FROM jobs WHERE tenant = $1 AND pipeline = $2 AND kind IN ('Build', 'Check')"
_REJECT = """
UPDATE index_versions SET state = 'Rejected', reason = $3, updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND state = 'Building'
"""
_BUILD_ON = """
UPDATE index_versions SET state = 'Building', reason = NULL, chosen = $4, updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND version = $3
"""
_HOLDS_ALREADY = """
UPDATE documents SET built_version = $3 WHERE tenant = $1 AND pipeline = $2 AND indexed_change <= $4::bigint
"""
_COMPLETE_TO = "SELECT complete_to FROM index_versions WHERE tenant = $1 AND pipeline = $2 AND version = $3"
_STOP_BUILDING = """
WITH stopped AS (
    SELECT version, served_at IS NOT NULL AS kept FROM index_versions
    WHERE tenant = $1 AND pipeline = $2 AND state = 'Building'
), marked AS (
    UPDATE index_versions v SET state = 'Ready', updated_at = now()
    FROM stopped WHERE v.tenant = $1 AND v.pipeline = $2 AND v.version = stopped.version AND kept
), retired AS (
    INSERT INTO retired_tables (tenant, pipeline, table_name)
    SELECT $1, $2, table_name FROM index_versions v JOIN stopped USING (version)
    WHERE v.tenant = $1 AND v.pipeline = $2 AND NOT kept
), gone AS (
    DELETE FROM index_versions v USING stopped
    WHERE v.tenant = $1 AND v.pipeline = $2 AND v.version = stopped.version AND NOT kept
)
SELECT version FROM stopped
"""
_RETIRE = """
WITH goers AS (
    SELECT v.version, v.table_name FROM index_versions v JOIN pipelines p ON (p.tenant, p.name) = (v.tenant, v.pipeline)
    WHERE v.tenant = $1 AND v.pipeline = $2 AND v.state = 'Ready' AND v.version <> p.index_version
    ORDER BY v.served_at DESC NULLS LAST, v.version DESC
    OFFSET (SELECT coalesce((spec ->> 'keepVersions')::integer, 2) - 1 FROM pipelines WHERE tenant = $1 AND name = $2)
), retired AS (
    INSERT INTO retired_tables (tenant, pipeline, table_name)
    SELECT $1, $2, table_name FROM goers
)
DELETE FROM index_versions WHERE tenant = $1 AND pipeline = $2 AND version IN (SELECT version FROM goers)
"""
_RETIRE_REJECTED = """
WITH goers AS (
    DELETE FROM index_versions WHERE tenant = $1 AND pipeline = $2 AND state = 'Rejected' RETURNING table_name
)
INSERT INTO retired_tables (tenant, pipeline, table_name)
SELECT $1, $2, table_name FROM goers
"""
_INTERRUPT = """
UPDATE pipelines SET epoch = epoch + 1, lease_worker = NULL, lease_expires_at = NULL WHERE tenant = $1 AND name = $2
"""
