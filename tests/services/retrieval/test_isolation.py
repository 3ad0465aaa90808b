"""No tenant reaches another one's documents: not through a process that serves both, and not at the storage itself."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import boto3
import pytest
import pytest_asyncio
from botocore.exceptions import ClientError

from loam_retrieval.adapters.databases import Databases
from loam_shared.contracts.admin import StorageGrant
from loam_shared.contracts.internal import IndexPointer
from loam_shared.contracts.retrieval import Serving
from loam_shared.errors import UnavailableError

from ..ingestion import _rag
from ._hostile import CANARY, Attacker, Attempt, Target

QUERIES = int(os.environ.get("LOAM_ISOLATION_QUERIES", "2000"))
AT_ONCE = 24
SPEC = _rag.SPEC | {"serving": {"mode": "Shared"}, "retrieval": {"mode": "Keyword", "topK": 8, "candidates": 50}}
READ_BY_RETRIEVAL = ("embedding", "retrieval", "generation")


SECRETS = ("moves the harbour", "sells the mill", "hires three geologists")


@dataclass
class Both:
    """Two tenants whose pipelines, of the same name, one pool serves."""

    own: Target
    other: Target


@pytest_asyncio.fixture(scope="module")
async def both(platform: _rag.Platform) -> AsyncIterator[Both]:
    async with platform.pipeline(SPEC) as own, platform.pipeline(SPEC) as other:
        for number, about in enumerate(("is 25 days for everybody", "ends with the year", "is asked for at the desk")):
            await own.upload(f"leave-{number}.md", f"Paid leave {about}.".encode())
            await other.upload(
                f"secret-{number}.md", f"The plan {CANARY} {SECRETS[number]} and is to be kept secret.".encode()
            )
        with own.working(), other.working():
            await own.settled()
            await other.settled()
        platform.pool.start()
        yield Both(await _target(own), await _target(other))
        platform.pool.stop()


async def _target(pipeline: _rag.Pipeline) -> Target:
    environment = pipeline.pod_environment
    grant = StorageGrant(
        bucket=environment["LOAM_STORAGE_BUCKET"],
        prefix=environment["LOAM_STORAGE_PREFIX"],
        region=environment["AWS_REGION"],
        endpoint=environment["AWS_ENDPOINT_URL_S3"],
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    pointer, documents = await pipeline.pointer(), await pipeline.documents()
    assert pointer is not None
    serving = Serving(uid=pipeline.tenant, spec={name: SPEC[name] for name in READ_BY_RETRIEVAL}, storage=grant)
    ids = [one["documentId"] for one in documents.values()]
    return Target(pipeline, serving, pointer, ids, sorted(documents))


async def _ask(session: aiohttp.ClientSession, pool: _rag.Pod, attempt: Attempt) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {attempt.token}"}
    async with session.post(f"{pool.url}/query", json=attempt.body, headers=headers) as response:
        return response.status, json.loads(await response.read())


def _foreign(both: Both, answer: Any) -> list[Any]:
    """What of an answer is the other tenant's."""
    matches = answer.get("matches", []) if isinstance(answer, dict) else []
    known = {*both.other.document_ids, *both.other.names}
    return [one for one in matches if CANARY in one["text"] or {one["documentId"], one["source"]} & known]


async def test_no_question_filter_pointer_login_or_token_reaches_another_tenants_rows(
    both: Both, platform: _rag.Platform
) -> None:
    """Both tenants ask the same process all the while, so their tables and logins are all open in it."""
    statuses: dict[str, Counter[int]] = {}
    foreign: list[Any] = []
    attempts = Attacker(both.own, both.other).attempts(QUERIES)

    async def attack(session: aiohttp.ClientSession) -> None:
        for number, attempt in enumerate(attempts):
            status, answer = await _ask(session, platform.pool, attempt)
            statuses.setdefault(attempt.kind, Counter())[status] += 1
            foreign.extend((attempt.body, one) for one in _foreign(both, answer))
            if number % 100 == 0:
                assert len(await both.own.pipeline.query("paid leave")) == 3
                assert len(await both.other.pipeline.query(CANARY)) == 3

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(attack(session) for _ in range(AT_ONCE)))
    assert foreign == []
    assert sum(found.total() for found in statuses.values()) == QUERIES
    # What asks for less than another's rows is answered, and everything else is refused rather than failed on.
    assert {kind: set(found) for kind, found in statuses.items()} == {
        "filtered": {200, 400},
        "worded": {200},
        "pointed": {403},
        "forged": {403, 503},
        "signed": {403, 503},
        "impersonated": {401, 403},
    }


@pytest.mark.parametrize("name", ["..%2F{0}%2Fhandbook", "{0}", "handbook%2F..%2F..%2F{0}", "%2e%2e/{0}/handbook"])
async def test_the_public_door_knows_no_pipeline_but_the_tenants_own(both: Both, name: str) -> None:
    own, path = both.own.pipeline, name.format(both.other.pipeline.tenant)
    headers = {"authorization": f"Bearer {own.key}"}
    url = f"{own.platform.public}/v1/pipelines/{path}/query"
    async with own.platform.session.post(url, json={"query": CANARY}, headers=headers) as response:
        assert response.status == 404


@pytest.mark.parametrize("part", ["serving", "index"])
async def test_callers_cannot_say_what_serves_them(both: Both, part: str) -> None:
    own, other = both.own.pipeline, both.other
    said = {"serving": other.serving.model_dump(by_alias=True), "index": other.pointer}[part]
    headers = {"authorization": f"Bearer {own.key}"}
    url = f"{own.platform.public}/v1/pipelines/handbook/query"
    async with own.platform.session.post(url, json={"query": CANARY, part: said}, headers=headers) as response:
        assert response.status == 400
        assert part in (await response.text())


@pytest.fixture
def s3(both: Both) -> Iterator[Any]:
    """The attacker's own login at the storage."""
    grant = both.own.serving.storage
    client = boto3.client(
        "s3",
        endpoint_url=grant.endpoint,
        region_name=grant.region,
        aws_access_key_id=grant.access_key_id,
        aws_secret_access_key=grant.secret_access_key,
    )
    yield client
    client.close()


def _refusals(s3: Any, bucket: str, prefix: str, key: str) -> Iterator[str]:
    """The code with which the storage refuses each way to reach a key or its prefix; empty where one goes through."""
    calls = (
        lambda: s3.list_objects_v2(Bucket=bucket, Prefix=prefix),
        lambda: s3.list_objects_v2(Bucket=bucket),
        lambda: s3.get_object(Bucket=bucket, Key=key),
        lambda: s3.head_object(Bucket=bucket, Key=key),
        lambda: s3.put_object(Bucket=bucket, Key=key, Body=b"mine"),
        lambda: s3.put_object(Bucket=bucket, Key=f"{prefix}new", Body=b"mine"),
        lambda: s3.delete_object(Bucket=bucket, Key=key),
        lambda: s3.create_multipart_upload(Bucket=bucket, Key=key),
    )
    for call in calls:
        try:
            call()
        except ClientError as error:
            yield error.response["Error"]["Code"]
        else:
            yield ""


async def test_the_storage_itself_refuses_one_tenants_login_at_anothers_prefix(both: Both, s3: Any) -> None:
    own, other = both.own.serving.storage, both.other.serving.storage
    mine = await asyncio.to_thread(s3.list_objects_v2, Bucket=own.bucket, Prefix=f"{own.prefix}index/")
    assert mine["KeyCount"] > 0
    theirs = mine["Contents"][0]["Key"].replace(own.prefix, other.prefix)
    found = await asyncio.to_thread(lambda: set(_refusals(s3, own.bucket, other.prefix, theirs)))
    assert found <= {"AccessDenied", "403"}
    assert len(await both.other.pipeline.query(CANARY)) == 3


async def test_lancedb_opens_no_table_of_another_tenant_even_where_it_is_open_for_its_owner(both: Both) -> None:
    databases, other = Databases(index_mib=16, metadata_mib=16), both.other
    pointer = IndexPointer.model_validate(other.pointer)
    theirs = await databases.index(other.serving.storage)
    assert len(await theirs.matching(pointer, CANARY, None, 10)) == 3
    stolen = both.own.serving.storage.model_copy(update={"prefix": other.serving.storage.prefix})
    with pytest.raises(UnavailableError):
        await (await databases.index(stolen)).matching(pointer, CANARY, None, 10)
