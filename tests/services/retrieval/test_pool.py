"""The platform's pool: one process that serves the pipelines of many tenants."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ..ingestion import _rag

SHARED = _rag.SPEC | {"serving": {"mode": "Shared"}}
QUESTION = {"messages": [{"role": "user", "content": "How many days of paid leave does everybody get?"}]}


@pytest_asyncio.fixture(scope="module")
async def shared(platform: _rag.Platform) -> AsyncIterator[_rag.Pipeline]:
    """A pipeline with a document that the pool serves."""
    async with platform.pipeline(SHARED) as made:
        await made.upload("leave.md", b"# Leave\n\nEverybody gets 25 days of paid leave per year.")
        with made.working():
            await made.settled()
        made.retrieval.start()
        yield made
        made.retrieval.stop()


async def test_the_pool_searches_and_answers_as_a_pod_of_its_own_would(shared):
    assert [match["source"] for match in await shared.query("paid leave")] == ["leave.md"]
    answer = await shared.call("POST", "/chat", QUESTION)
    assert "25 days" in answer["content"]
    assert [one["source"] for one in answer["citations"]] == ["leave.md"]
