"""An object that changes in a source bucket shows in answers because S3 said so, whatever dies on the way."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import boto3
import pytest
import pytest_asyncio
from aiohttp import ClientSession, web

from .._servers import queues
from . import _rag

BUCKET = f"acme-docs-{os.urandom(4).hex()}"
SPEC = _rag.SPEC | {"sources": [{"s3": {"bucket": BUCKET, "prefix": "handbook/", "suffixes": [".md"]}}]}


class Door:
    """SQS as the gateway reaches it; while it is `shut`, nothing can be deleted."""

    def __init__(self, http: ClientSession, endpoint: str) -> None:
        self._http = http
        self._endpoint = endpoint
        self.open = asyncio.Event()
        self.open.set()
        self.knocked = asyncio.Event()
        self.deletions = 0

    async def call(self, request: web.Request) -> web.Response:
        if request.headers["x-amz-target"].endswith("DeleteMessageBatch"):
            if not self.open.is_set():
                self.knocked.set()
                await self.open.wait()
                # By now whoever asked for this is dead.
                return web.Response(status=503)
            self.deletions += 1
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with self._http.post(self._endpoint, data=await request.read(), headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)


@pytest_asyncio.fixture(scope="module")
async def queue() -> AsyncIterator[queues.Queue]:
    with queues.sqs() as endpoint:
        async with queues.queue(endpoint) as made:
            await made.come_again_after(1)
            yield made


@pytest_asyncio.fixture(scope="module")
async def door(queue) -> AsyncIterator[Door]:
    async with ClientSession() as http:
        door = Door(http, queue.client.meta.endpoint_url)
        app = web.Application()
        app.add_routes([web.post("/{path:.*}", door.call)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, _rag.HOST, 0).start()
        door.url = f"http://{_rag.HOST}:{runner.addresses[0][1]}"
        yield door
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module")
async def platform(postgres, migrated_template, valkey_url, s3_endpoint, queue, door) -> AsyncIterator[_rag.Platform]:
    settings = {"LOAM_SOURCE_EVENTS_QUEUE_URL": queue.url, "AWS_ENDPOINT_URL_SQS": door.url}
    async with _rag.platform(postgres, migrated_template, valkey_url, s3_endpoint, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(s3_endpoint) -> Any:
    login = {"aws_access_key_id": "admin", "aws_secret_access_key": "adminsecret", "region_name": "us-east-1"}
    made = boto3.resource("s3", endpoint_url=s3_endpoint, **login).Bucket(BUCKET)
    made.create()
    return made


def said_by_s3(key: str) -> str:
    return json.dumps({"Records": [{"s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}}]})


async def until(condition, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module")
async def pipeline(platform) -> AsyncIterator[_rag.Pipeline]:
    async with platform.pipeline(SPEC, sourceBuckets=[BUCKET]) as made:
        yield made


async def test_a_gateway_that_is_killed_before_it_deletes_a_message_doubles_nothing(
    platform, pipeline, queue, door, bucket
):
    await platform.database.execute("DELETE FROM jobs")
    bucket.put_object(Key="handbook/ferry.md", Body=b"The ferry leaves at nine.")
    door.open.clear()
    await queue.send([said_by_s3("handbook/ferry.md")])
    await asyncio.wait_for(door.knocked.wait(), 30)
    assert await platform.jobs(pipeline.tenant) == 1
    platform.gateway.kill()
    assert await queue.held() == 1
    door.open.set()
    platform.start_gateway()
    await until(lambda: is_empty(queue))
    assert door.deletions == 1
    assert await platform.jobs(pipeline.tenant) == 1


async def test_a_changed_object_shows_in_search_because_s3_said_so(pipeline, queue, bucket):
    """Also where the sync was asked for by the gateway that was killed before."""
    bucket.put_object(Key="handbook/ferry.md", Body=b"The ferry leaves at nine.")
    with pipeline.working():
        await until(lambda: shows(pipeline, "nine"))
        bucket.put_object(Key="handbook/ferry.md", Body=b"The ferry leaves at eleven.")
        await queue.send([said_by_s3("handbook/ferry.md")])
        await until(lambda: shows(pipeline, "eleven"))
        assert await pipeline.chunks() == [("handbook/ferry.md", "The ferry leaves at eleven.")]
        bucket.Object("handbook/ferry.md").delete()
        await queue.send([said_by_s3("handbook/ferry.md")])
        await until(lambda: nothing_left(pipeline))
        assert await found(pipeline) == ""


async def found(pipeline: _rag.Pipeline) -> str:
    """All that a search finds."""
    return " ".join(match["text"] for match in await pipeline.query("When does the ferry leave?"))


async def shows(pipeline: _rag.Pipeline, text: str) -> bool:
    return text in await found(pipeline)


async def nothing_left(pipeline: _rag.Pipeline) -> bool:
    return not await pipeline.documents()


async def is_empty(queue: queues.Queue) -> bool:
    return await queue.held() == 0
