"""Documents as people see them: what arrives, what is listed, what is taken away."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import orjson

from loam_gateway import idempotency
from loam_gateway.adapters.postgres import Connection, Pool
from loam_gateway.directory.model import Principal
from loam_gateway.ledger.model import IdempotencyClaim
from loam_gateway.pipelines import catalog
from loam_gateway.pipelines.model import PipelineId, StoredObject, content_hash, document_id
from loam_gateway.vault import Vault
from loam_shared.contracts.internal import DocumentState
from loam_shared.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an uploader is told at once."""

    document_id: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Page:
    """Documents by name; `next_cursor` asks for the ones that follow, None at the end."""

    documents: list[DocumentState]
    next_cursor: str | None


async def announce_object(pool: Pool, tenant: str, key: str) -> None:
    """Write down an object before it is written, so that a crash leaves nothing behind that nobody knows of."""
    await pool.execute(_ANNOUNCE, key, tenant)


async def discard_objects(pool: Pool, keys: Sequence[str]) -> None:
    """Let go of objects that were announced and will not be used."""
    await pool.execute(_DISCARD, keys)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The Idempotency-Key that came with an upload."""

    vault: Vault
    caller: Principal
    value: str

    async def exchange(
        self, connection: Connection, pipeline: PipelineId, arrived: Sequence[StoredObject], told: list[Accepted]
    ) -> list[Accepted] | None:
        """Keep `told` for the same upload to come again, or give what was told then.

        Raises IdempotencyConflictError when something else came with this key.
        """
        wanted = IdempotencyClaim(self.value, content_hash(pipeline, arrived))
        kept = await idempotency.claim(connection, self.vault, self.caller, wanted, orjson.dumps(told))
        return None if kept is None else [Accepted(**one) for one in orjson.loads(kept)]


async def accept(
    pool: Pool, pipeline: PipelineId, arrived: Sequence[StoredObject], receipt: Receipt | None = None
) -> list[Accepted]:
    """Take uploaded objects as the contents of documents, all or none, and queue what is new in them.

    A document of the same name is replaced and keeps its id; the same bytes again change nothing, and neither does a
    `receipt` that came before. Raises NotFoundError, IdempotencyConflictError for a receipt of something else.
    """
    newest = {document_id(pipeline, "Uploads", None, one.name): one for one in arrived}
    async with pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, pipeline)
        as_they_are = await _unchanged(connection, pipeline, newest)
        told = [Accepted(key, one.name, as_they_are.get(key, "Pending")) for key, one in newest.items()]
        before = receipt and await receipt.exchange(connection, pipeline, arrived, told)
        changed = {} if before else {key: one for key, one in newest.items() if key not in as_they_are}
        if changed:
            await _replace(connection, pipeline, changed)
        await connection.execute(_DISCARD, [one.key for one in arrived if one not in changed.values()])
    return before or told


async def listing(pool: Pool, pipeline: PipelineId, *, limit: int, cursor: str | None) -> Page:
    """A page of documents in the order of their names. Raises NotFoundError, InvalidRequestError for a bad cursor."""
    await catalog.spec(pool, pipeline)
    after = _decoded(cursor) if cursor else ("", "")
    rows = await pool.fetch(_SELECT + _AFTER, *pipeline, *after, limit + 1)
    documents = [_state(row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(documents, _encoded(documents[-1]) if more else None)


async def show(pool: Pool, pipeline: PipelineId, key: str) -> DocumentState:
    """One document. Raises NotFoundError."""
    row = await pool.fetchrow(_SELECT + " AND d.document_id = $3", *pipeline, key)
    if row is None:
        raise _unknown(key)
    return _state(row)


async def by_status(pool: Pool, pipeline: PipelineId) -> dict[str, int]:
    """How many documents there are of each status that there is."""
    return {row["status"]: row["documents"] for row in await pool.fetch(_BY_STATUS, *pipeline)}


async def remove(pool: Pool, pipeline: PipelineId, key: str) -> DocumentState:
    """Have an uploaded document taken out of the index and deleted, also while it is being ingested.

    Raises NotFoundError, and ConflictError for one that a source would only bring back.
    """
    async with pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, pipeline)
        source = await connection.fetchval(_SOURCE_OF, *pipeline, key)
        if source is None:
            raise _unknown(key)
        if source != "Uploads":
            raise ConflictError(
                f"this document comes from a source ({source}); delete it there, and the next sync sees it"
            )
        await catalog.queue_removals(connection, pipeline, [key])
    return await show(pool, pipeline, key)


def _unknown(key: str) -> NotFoundError:
    return NotFoundError(f"there is no document {key} in this pipeline", param="documentId")


async def _unchanged(
    connection: Connection, pipeline: PipelineId, newest: Mapping[str, StoredObject]
) -> dict[str, str]:
    """The documents that hold these very bytes already, and their status."""
    hashes = [one.sha256 for one in newest.values()]
    rows = await connection.fetch(_UNCHANGED, *pipeline, list(newest), hashes)
    return {row["document_id"]: row["status"] for row in rows}


async def _replace(connection: Connection, pipeline: PipelineId, changed: Mapping[str, StoredObject]) -> None:
    objects = list(changed.values())
    claimed = await connection.fetch(_CLAIM_OBJECTS, [one.key for one in objects])
    if len(claimed) < len(objects):
        # Housekeeping took them for abandoned: the upload went on for longer than it waits.
        raise UnavailableError("the upload took too long; send it again", retry_after=1)
    await connection.execute(_FREE_FORMER, *pipeline, list(changed))
    columns = zip(*((one.name, one.sha256, one.size, one.media_type, one.key) for one in objects), strict=True)
    await connection.execute(_UPSERT, *pipeline, list(changed), *(list(column) for column in columns))
    await catalog.queue_ingests(connection, pipeline, list(changed))


def _state(row: asyncpg.Record) -> DocumentState:
    return DocumentState(**dict(row))


def _encoded(last: DocumentState) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([last.name, last.document_id])).decode()


def _decoded(cursor: str) -> tuple[str, str]:
    try:
        name, key = orjson.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidRequestError("this cursor was not given out by us", param="cursor") from error
    return str(name), str(key)


_ANNOUNCE = "INSERT INTO unclaimed_objects (key, tenant, due_at) VALUES ($1, $2, now() + interval '1 hour')"
_DISCARD = "UPDATE unclaimed_objects SET due_at = now() WHERE key = ANY($1)"
_CLAIM_OBJECTS = "DELETE FROM unclaimed_objects WHERE key = ANY($1) RETURNING key"
_UNCHANGED = """
SELECT document_id, status FROM documents JOIN unnest($3::text[], $4::text[]) AS new (id, sha256)
ON document_id = new.id AND etag = new.sha256
WHERE tenant = $1 AND pipeline = $2 AND status IN ('Pending', 'Ready')
"""
# A worker may be reading the former bytes right now; they go a little later.
_FREE_FORMER = """
INSERT INTO unclaimed_objects (key, tenant, due_at)
SELECT raw_key, tenant, now() + interval '10 minutes' FROM documents
WHERE tenant = $1 AND pipeline = $2 AND document_id = ANY($3) AND raw_key IS NOT NULL
ON CONFLICT (key) DO NOTHING
"""
_UPSERT = """
INSERT INTO documents AS d (tenant, pipeline, document_id, source, name, etag, size, media_type, raw_key)
SELECT $1, $2, id, 'Uploads', name, etag, size, media_type, raw_key
FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[])
     AS new (id, name, etag, size, media_type, raw_key)
ON CONFLICT (tenant, pipeline, document_id) DO UPDATE
SET etag = excluded.etag, size = excluded.size, media_type = excluded.media_type, raw_key = excluded.raw_key,
    version = d.version + 1
"""
_SOURCE_OF = "SELECT source FROM documents WHERE tenant = $1 AND pipeline = $2 AND document_id = $3"
_SELECT = """
SELECT d.document_id, d.name, d.source, d.size, d.version, d.title, d.pages, d.chunks, d.error, d.parse_seconds,
       d.embed_seconds, d.created_at, d.updated_at, d.indexed_at,
       CASE WHEN d.status = 'Ready' AND d.staged THEN 'Processing'
            WHEN d.status = 'Pending' AND j.epoch = p.epoch AND p.lease_expires_at > now() THEN 'Processing'
            ELSE d.status END AS status
FROM documents d
JOIN pipelines p ON (p.tenant, p.name) = (d.tenant, d.pipeline)
LEFT JOIN jobs j ON (j.tenant, j.pipeline, j.document_id) = (d.tenant, d.pipeline, d.document_id)
WHERE d.tenant = $1 AND d.pipeline = $2
"""
_BY_STATUS = f"SELECT status, count(*) AS documents FROM ({_SELECT}) AS shown GROUP BY status ORDER BY status"  # noqa: S608 - constants
_AFTER = " AND (d.name, d.document_id) > ($3, $4) ORDER BY d.name, d.document_id LIMIT $5"
