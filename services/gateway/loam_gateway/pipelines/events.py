"""What S3 says of changed objects, taken from a queue: a hint to look at the sources now.

An event is never believed, only followed: what is true is the listing that a sync makes. So a lost event delays until
the schedule, one that comes twice costs a second look, and a forged one costs a look.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import asyncpg
import orjson
import structlog

from loam_gateway.adapters import sqs
from loam_gateway.adapters.postgres import Pool
from loam_gateway.adapters.sqs import Message, MessageQueue
from loam_gateway.pipelines import catalog
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.storage.policy import is_bucket
from loam_shared.errors import NotFoundError, UnavailableError

# A burst is taken in gulps of about so many messages, each of which costs one query.
_GULP = 500
# Seconds until the next try, after one failure, two, and so on.
_PAUSES = (1, 2, 4, 8, 16, 32, 60)
_log = structlog.get_logger()


class ChangedObject(NamedTuple):
    """An object that was written or deleted."""

    bucket: str
    key: str


class NotAnEventError(ValueError):
    """The message is none that S3 sends, in none of the three ways."""


async def run(pool: Pool, queue_url: str) -> None:
    """Follow the events until cancelled. A queue that is away is tried again; the schedule goes on meanwhile."""
    failures = 0
    while True:
        try:
            async with sqs.opened(queue_url) as queue:
                while True:
                    await follow(pool, queue)
                    if failures:
                        _log.info("source events are followed again")
                    failures = 0
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, UnavailableError) as error:
            if not failures:
                _log.warning("cannot follow source events; syncs go by schedule alone", reason=str(error))
            failures += 1
        await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES)) - 1])


async def follow(pool: Pool, queue: MessageQueue) -> None:
    """Wait for events, queue the syncs that they call for, and only then have the messages not come again.

    Killed in between, they do come again; a sync that waits by then covers them, one more does no harm.
    """
    messages = await queue.take(_GULP)
    for pipeline in await _concerned(pool, _understood(messages)):
        await _ask_for_sync(pool, pipeline)
    await queue.delete(messages)


def changed_objects(body: str) -> list[ChangedObject]:
    """What a message says was changed: straight from S3, by way of SNS, or of EventBridge. Pure.

    Nothing for the test that S3 sends when a queue is connected. Raises NotAnEventError.
    """
    try:
        said = orjson.loads(body)
        if isinstance(said.get("Message"), str):
            said = orjson.loads(said["Message"])
        if said.get("Event") == "s3:TestEvent":
            return []
        if "detail" in said:
            # Only here are keys not percent-encoded.
            return [_changed(said["detail"], str)]
        return [_changed(record["s3"], unquote_plus) for record in said["Records"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAnEventError from error


def _changed(said: Any, decoded: Callable[[str], str]) -> ChangedObject:
    bucket, key = said["bucket"]["name"], said["object"]["key"]
    if not (is_bucket(bucket) and isinstance(key, str)):
        raise TypeError
    return ChangedObject(bucket, decoded(key))


def _understood(messages: Iterable[Message]) -> set[ChangedObject]:
    """All that the messages say. What cannot be understood is written down, without its content, and passed over."""
    found: set[ChangedObject] = set()
    for message in messages:
        try:
            found.update(changed_objects(message.body))
        except NotAnEventError:
            _log.warning("a message in the queue of source events is no S3 event; it is deleted", message=message.id)
    return found


async def _concerned(pool: Pool, changed: set[ChangedObject]) -> set[PipelineId]:
    """The pipelines with a source over one of the objects, but for those for which a sync waits already.

    One that waits has not listed yet, so it will see what these events are about.
    """
    by_bucket: dict[str, list[str]] = {}
    for one in changed:
        by_bucket.setdefault(one.bucket, []).append(one.key)
    rows = await pool.fetch(_SOURCES, list(by_bucket)) if by_bucket else ()
    return {
        PipelineId(row["tenant"], row["name"])
        for row in rows
        if _covers(row["prefix"] or "", row["suffixes"], by_bucket[row["bucket"]])
    }


def _covers(prefix: str, suffixes: Sequence[str], keys: Iterable[str]) -> bool:
    """Whether the source shows one of the keys; it passes over the case of suffixes, as the listing does."""
    endings = tuple(suffix.lower() for suffix in suffixes) or ("",)
    return any(key.startswith(prefix) and key.lower().endswith(endings) for key in keys)


async def _ask_for_sync(pool: Pool, pipeline: PipelineId) -> None:
    # It may have been deleted since.
    with suppress(NotFoundError):
        async with pool.acquire() as connection, connection.transaction():
            await catalog.locked(connection, pipeline)
            await catalog.queue_sync(connection, pipeline)


_SOURCES = """
SELECT p.tenant, p.name, s3->>'bucket' AS bucket, s3->>'prefix' AS prefix,
       ARRAY(SELECT jsonb_path_query(s3, '$.suffixes[*] ? (@.type() == "string")') #>> '{}') AS suffixes
FROM pipelines p JOIN tenants t ON t.name = p.tenant,
     jsonb_path_query(p.spec, '$.sources[*].s3') AS s3
WHERE s3->>'bucket' = ANY($1) AND NOT p.purging AND p.uid IS NOT NULL AND t.active AND NOT t.suspended
  AND NOT EXISTS (
    SELECT FROM jobs j WHERE (j.tenant, j.pipeline) = (p.tenant, p.name) AND j.kind = 'Sync' AND j.epoch IS NULL
  )
"""
