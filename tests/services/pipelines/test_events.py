"""What S3 says over SQS has the right pipelines look at their sources, and nothing in the queue stops the others."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from loam_gateway.adapters import sqs
from loam_gateway.pipelines import catalog, events
from loam_gateway.pipelines.events import ChangedObject, NotAnEventError, changed_objects
from loam_gateway.pipelines.model import PipelineId
from loam_shared.errors import UnavailableError

from .._servers import queues


def from_s3(*keys: str, bucket: str = "acme-docs") -> str:
    """As S3 sends it to a queue; keys come percent-encoded."""
    records = [{"eventSource": "aws:s3", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}} for key in keys]
    return json.dumps({"Records": records})


def by_sns(body: str) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:1:t", "Message": body})


def by_event_bridge(key: str) -> str:
    detail = {"bucket": {"name": "acme-docs"}, "object": {"key": key, "size": 1}, "reason": "PutObject"}
    return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})


TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "acme-docs"})
JUNK = [
    "",
    "hello",
    "7",
    "[]",
    "{}",
    '{"Records": 1}',
    '{"Records": [{"dynamodb": {}}]}',
    '{"Message": "hello"}',
    '{"detail": {"bucket": {"name": "acme-docs"}, "object": {"key": 7}}}',
    '{"detail": {"bucket": {"name": "a\\u0000b"}, "object": {"key": "x"}}}',
    "[" * 100_000,
]


@pytest.mark.parametrize(
    "body",
    [
        from_s3("handbook/travel+and+leave%2B%C3%A9.md"),
        by_sns(from_s3("handbook/travel+and+leave%2B%C3%A9.md")),
        by_event_bridge("handbook/travel and leave+é.md"),
        by_sns(by_event_bridge("handbook/travel and leave+é.md")),
    ],
    ids=["direct", "SNS", "EventBridge", "EventBridge and SNS"],
)
def test_events_say_the_same_whichever_way_they_come(body):
    assert changed_objects(body) == [ChangedObject("acme-docs", "handbook/travel and leave+é.md")]


def test_the_test_of_a_new_connection_changes_nothing():
    assert changed_objects(TEST_EVENT) == changed_objects(by_sns(TEST_EVENT)) == []


@pytest.mark.parametrize("body", JUNK, ids=range(len(JUNK)))
def test_what_is_no_event_is_told_apart(body):
    with pytest.raises(NotAnEventError):
        changed_objects(body)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with queues.sqs() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in (queues.LOGIN | {"AWS_ENDPOINT_URL_SQS": running}).items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
async def queue(endpoint) -> AsyncIterator[queues.Queue]:
    async with queues.queue(endpoint) as made:
        yield made


@pytest.fixture
async def follow(pool, queue):
    """What one gateway does with what is in the queue."""
    async with sqs.opened(queue.url) as opened:
        yield lambda: events.follow(pool, opened)


async def new_pipeline(pool, *sources: dict, suspended: bool = False) -> PipelineId:
    """A pipeline with these sources, with nothing to do."""
    made = PipelineId(f"t{os.urandom(4).hex()}", "handbook")
    await pool.execute("INSERT INTO tenants (name, uid, suspended) VALUES ($1, '1', $2)", made.tenant, suspended)
    await pool.execute("INSERT INTO tenant_storage (tenant, uid) VALUES ($1, '1')", made.tenant)
    spec = json.dumps({"sources": sources})
    make = "INSERT INTO pipelines (tenant, name, uid, spec, endpoint) VALUES ($1, $2, '1', $3::text::jsonb, '-')"
    await pool.execute(make, *made, spec)
    return made


def s3(**source: object) -> dict:
    return {"s3": {"bucket": "acme-docs"} | source}


async def syncs(pool, *pipelines: PipelineId) -> list[int]:
    """How many syncs wait or are under way for each."""
    count = "SELECT count(*) FROM jobs WHERE (tenant, pipeline) = ($1, $2) AND kind = 'Sync'"
    return [await pool.fetchval(count, *one) for one in pipelines]


async def test_exactly_the_pipelines_whose_sources_show_the_object_are_synced(pool, queue, follow):
    wanted = [
        await new_pipeline(pool, s3()),
        await new_pipeline(pool, {"uploads": {}}, s3(bucket="others"), s3(prefix="hand", suffixes=[".pdf", ".md"])),
    ]
    unwanted = [
        await new_pipeline(pool, {"uploads": {}}, {"configMap": {"name": "faq"}}),
        await new_pipeline(pool, s3(bucket="others")),
        await new_pipeline(pool, s3(prefix="handbook/x")),
        await new_pipeline(pool, s3(suffixes=[".pdf"])),
        await new_pipeline(pool, s3(), suspended=True),
        await new_pipeline(pool, s3()),
    ]
    await pool.execute("UPDATE pipelines SET purging = true WHERE tenant = $1", unwanted[-1].tenant)
    await queue.send([from_s3("handbook/TRAVEL.MD")])
    await follow()
    assert await syncs(pool, *wanted, *unwanted) == [1, 1, 0, 0, 0, 0, 0, 0]
    assert await queue.held() == 0


async def test_a_burst_of_events_costs_one_sync(pool, queue, follow):
    pipeline = await new_pipeline(pool, s3(prefix="burst/"))
    await queue.send([from_s3(f"burst/{number}.md") for number in range(60)])
    while await queue.held():
        await follow()
    assert await syncs(pool, pipeline) == [1]


async def test_an_event_during_a_sync_asks_for_another_one(pool, queue, follow):
    """The one that is under way may have listed before the object was changed."""
    pipeline = await new_pipeline(pool, s3(prefix="busy/"))
    await pool.execute("INSERT INTO jobs (tenant, pipeline, kind, epoch) VALUES ($1, $2, 'Sync', 1)", *pipeline)
    await queue.send([from_s3("busy/a.md")])
    await follow()
    assert await syncs(pool, pipeline) == [2]


async def test_what_is_no_event_is_deleted_and_keeps_no_other_from_being_followed(pool, queue, follow, capsys):
    pipeline = await new_pipeline(pool, s3(prefix="junk/"))
    await queue.send([TEST_EVENT, *(body for body in JUNK[1:-1] if "\0" not in body), from_s3("junk/secret.md")])
    await follow()
    assert await syncs(pool, pipeline) == [1]
    assert await queue.held() == 0
    logged = capsys.readouterr().out
    assert logged.count("is no S3 event") == len(JUNK) - 2
    assert "secret.md" not in logged


async def test_a_message_is_not_deleted_before_its_sync_is_queued(pool, queue, follow):
    pipeline = await new_pipeline(pool, s3(prefix="locked/"))
    await queue.come_again_after(1)
    await queue.send([from_s3("locked/a.md")])
    async with pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, pipeline)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(follow(), 0.5)
    assert await queue.held() == 1
    await follow()
    assert await syncs(pool, pipeline) == [1]
    assert await queue.held() == 0


async def test_a_queue_that_is_away_is_said_once_and_followed_when_it_is_back(pool, queue, monkeypatch, capsys):
    pipeline = await new_pipeline(pool, s3(prefix="away/"))
    monkeypatch.setattr(events, "_PAUSES", (0.01,))
    nobody = f"{queue.url}-that-nobody-made"
    following = asyncio.create_task(events.run(pool, nobody))
    said = ""
    async with asyncio.timeout(20):
        while "cannot follow source events" not in said:
            await asyncio.sleep(0.02)
            said += capsys.readouterr().out
        # A few tries more, about which nothing is said.
        await asyncio.sleep(0.2)
        made = await queue.client.create_queue(QueueName=nobody.rpartition("/")[2])
        await queues.Queue(made["QueueUrl"], queue.client).send([from_s3("away/a.md")])
        while True:
            if await syncs(pool, pipeline) == [1]:
                break
            await asyncio.sleep(0.02)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(following, 1)
    assert (said + capsys.readouterr().out).count("cannot follow source events") == 1


async def test_an_endpoint_that_is_none_is_said_as_an_outage(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "nonsense")
    with pytest.raises(UnavailableError):
        async with sqs.opened("http://127.0.0.1:1/q"):
            pass
