"""The platform's pool: one process that serves the pipelines of many tenants."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from loam_retrieval.adapters.gateway import Gateway
from loam_retrieval.served import Pipelines
from loam_retrieval.settings import Settings
from loam_shared.contracts.admin import StorageGrant
from loam_shared.contracts.retrieval import Query, Serving
from loam_shared.credentials import Caller

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


async def test_a_pipeline_that_is_made_anew_under_an_old_name_answers_from_its_own_documents_only(platform):
    async with platform.pipeline(SHARED) as made:
        await made.upload("old.md", b"The wombat is the animal of the month.")
        with made.working():
            await made.settled()
        assert [match["source"] for match in await made.query("wombat")] == ["old.md"]
        before = await made.pointer()
        path, headers = f"tenants/{made.tenant}/pipelines/handbook", {"authorization": f"Bearer {platform.admin_token}"}
        gone = f"{platform.admin}/admin/v1/{path}?uid={made.tenant}"
        async with platform.session.delete(gone, headers=headers) as response:
            assert (await response.json())["done"]
        await platform.put(path, {"uid": "another", "spec": SHARED, "endpoint": made.retrieval.url})
        await made.upload("new.md", b"The wombat is the animal of the year.")
        with made.working():
            await made.settled()
        after = await made.pointer()
        assert (after["table"], after["tableVersion"]) == (before["table"], before["tableVersion"])
        assert [match["source"] for match in await made.query("wombat")] == ["new.md"]


def _grant(pipeline: _rag.Pipeline) -> StorageGrant:
    environment = pipeline.pod_environment
    return StorageGrant(
        bucket=environment["LOAM_STORAGE_BUCKET"],
        prefix=environment["LOAM_STORAGE_PREFIX"],
        region=environment["AWS_REGION"],
        endpoint=environment["AWS_ENDPOINT_URL_S3"],
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


async def test_only_the_pipelines_asked_last_stay_open_and_none_that_is_idle(shared, platform):
    clock = 0.0
    settings = Settings(gateway_url=platform.internal, open_pipelines=2, idle_seconds=60)
    pipelines = Pipelines(settings, Gateway(platform.session, platform.internal, 5), None, lambda: clock)

    async def ask(top_k: int) -> object:
        serving = Serving(uid="1", spec=_rag.SPEC | {"retrieval": {"topK": top_k}}, storage=_grant(shared))
        caller = Caller(shared.tenant, "key", "request", pipeline="handbook", serving=serving.digest)
        return await pipelines.of(caller, Query(query="leave", serving=serving))

    first = await ask(1)
    assert await ask(1) is first
    await ask(2)
    await ask(3)
    assert REGISTRY.get_sample_value("loam_retrieval_open_pipelines") == 2
    assert await ask(1) is not first
    clock = 59
    third = await ask(3)
    clock = 61
    pipelines.let_go()
    assert REGISTRY.get_sample_value("loam_retrieval_open_pipelines") == 1
    assert await ask(3) is third


async def test_a_login_that_the_storage_no_longer_takes_is_an_index_that_cannot_be_read_now(shared, platform):
    storage = _grant(shared).model_copy(update={"secret_access_key": "x" * 40})
    serving = Serving(uid="1", spec=_rag.SPEC, storage=storage)
    body = {"query": "leave", "serving": serving.model_dump(by_alias=True), "index": await shared.pointer()}
    headers = {"authorization": f"Bearer {shared.token(serving=serving.digest)}"}
    async with platform.session.post(f"{platform.pool.url}/query", json=body, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize("missing", ["LOAM_TENANT", "LOAM_PIPELINE", "LOAM_CONFIG_FILE", "LOAM_STORAGE_PREFIX"])
def test_a_pod_that_knows_half_of_its_pipeline_does_not_start_as_a_pool(monkeypatch, missing):
    of_a_pod = {
        "LOAM_TENANT": "acme",
        "LOAM_PIPELINE": "p",
        "LOAM_CONFIG_FILE": "f",
        "LOAM_STORAGE_PREFIX": "tenants/acme/",
    }
    for name, value in of_a_pod.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOAM_GATEWAY_URL", "http://127.0.0.1:1")
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=missing):
        Settings()
