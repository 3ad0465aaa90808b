"""The pipelines' routes of a whole gateway process: keys, uploads of every size, work, questions."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiobotocore.session import get_session

from .conftest import CHUNKING, EMBEDDING, SPEC

MOST_UPLOADS = 4  # of the gateway that conftest starts
MIB = 2**20


@pytest.fixture
async def acme(gateway):
    return await gateway.new_tenant(f"t{os.urandom(4).hex()}")


def form(**files: bytes) -> aiohttp.FormData:
    data = aiohttp.FormData(quote_fields=False)
    data.add_field("note", "fields that are no files are passed over")
    for name, content in files.items():
        data.add_field("file", content, filename=f"{name}.md", content_type="text/markdown")
    return data


async def told(call) -> tuple[int, dict]:
    async with call as response:
        return response.status, orjson.loads(await response.read() or b"{}")


async def objects(gateway, tenant) -> dict[str, bytes]:
    """What lies below the tenant's prefix, and what was left half-way there."""
    storage = tenant.state["storage"]
    login = {"aws_access_key_id": "admin", "aws_secret_access_key": "adminsecret", "region_name": "us-east-1"}
    async with get_session().create_client("s3", endpoint_url=storage["endpoint"], **login) as client:
        where = {"Bucket": storage["bucket"], "Prefix": storage["prefix"]}
        unfinished = (await client.list_multipart_uploads(**where)).get("Uploads", [])
        keys = [entry["Key"] for entry in (await client.list_objects_v2(**where)).get("Contents", [])]
        found = {}
        for key in keys:
            # Housekeeping may delete one of them between the listing and this.
            with contextlib.suppress(client.exceptions.NoSuchKey):
                found[key] = await (await client.get_object(Bucket=storage["bucket"], Key=key))["Body"].read()
    return found | {f"unfinished {entry['Key']}": b"" for entry in unfinished}


async def until_objects(gateway, tenant, count: int) -> dict[str, bytes]:
    """What lies there once it is as much as it should be; housekeeping takes a moment."""
    for _ in range(150):
        if len(found := await objects(gateway, tenant)) == count:
            return found
        await asyncio.sleep(0.1)
    pytest.fail(f"there are {sorted(found)}, not {count}")


async def work_off(tenant, table_version: int = 1) -> list[dict]:
    """Be the pipeline's worker for one batch."""
    status, work = await told(tenant.work("claim", {"worker": "test", "waitSeconds": 5}))
    assert status == 200, work
    results = [{"jobId": job["id"], "state": "Done", "chunks": 2, "pages": 1} for job in work["jobs"]]
    head = {"table": "handbook-v1", "tableVersion": table_version, "chunks": len(results), "embedding": EMBEDDING}
    body = {"epoch": work["epoch"], "heads": [head], "results": results}
    assert (await told(tenant.work("commit", body)))[0] == 204
    return work["jobs"]


async def first_sync_is_over(tenant) -> None:
    assert [job["kind"] for job in await work_off(tenant)] == ["Sync"]


async def test_a_document_goes_from_upload_to_ready(gateway, acme):
    await first_sync_is_over(acme)
    status, taken = await told(acme.call("POST", "/documents", data=form(leave=b"# Leave\n\n26 days")))
    assert (status, taken["name"], taken["status"]) == (202, "leave.md", "Pending")
    jobs = await work_off(acme)
    assert [(job["documentId"], job["mediaType"]) for job in jobs] == [(taken["documentId"], "text/markdown")]
    assert (await objects(gateway, acme))[jobs[0]["rawKey"]] == b"# Leave\n\n26 days"
    status, shown = await told(acme.call("GET", f"/documents/{taken['documentId']}"))
    assert (status, shown["status"], shown["chunks"], shown["size"]) == (200, "Ready", 2, 16)
    _, state = await gateway.as_operator("GET", f"/admin/v1/tenants/{acme.name}/pipelines/handbook")
    assert (state["documents"], state["chunks"], state["indexVersion"]) == (1, 2 - 1, 1)
    _, states = await gateway.as_operator("GET", "/admin/v1/states")
    assert states["pipelines"][f"{acme.name}/handbook"]["documents"] == 1


async def test_several_files_at_once_are_taken_all_or_none(gateway, acme):
    status, taken = await told(acme.call("POST", "/documents", data=form(a=b"1", b=b"2")))
    assert status == 202
    assert [one["name"] for one in taken["documents"]] == ["a.md", "b.md"]
    bad = form(c=b"3")
    bad.add_field("file", b"4", filename="  ")
    status, refused = await told(acme.call("POST", "/documents", data=bad))
    assert (status, refused["error"]["param"]) == (400, "name")
    _, page = await told(acme.call("GET", "/documents"))
    assert [one["name"] for one in page["documents"]] == ["a.md", "b.md"]
    await until_objects(gateway, acme, 2)


async def test_a_json_body_may_carry_text_or_base64(gateway, acme):
    content = base64.b64encode(b"\x00\xff").decode()
    for body in ({"name": "ä.txt", "text": "grün"}, {"name": "b.bin", "contentBase64": content}):
        assert (await told(acme.call("POST", "/documents", json=body)))[0] == 202
    assert sorted((await objects(gateway, acme)).values()) == sorted([b"\x00\xff", "grün".encode()])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "a.md"}, "text"),
        ({"name": "a.md", "text": "x", "contentBase64": "eA=="}, "text"),
        ({"name": "a.md", "contentBase64": "###"}, "contentBase64"),
        ({"name": "", "text": "x"}, "name"),
        ({"name": "a\x00b", "text": "x"}, "name"),
        ({"name": "a.md", "txt": "x"}, "txt"),
        ({"text": "x"}, "name"),
        ([], None),
    ],
)
async def test_a_bad_body_is_refused_by_the_field_that_is_wrong(gateway, acme, body, param):
    status, refused = await told(acme.call("POST", "/documents", json=body))
    assert (status, refused["error"]["code"], refused["error"]["param"]) == (400, "invalid_request", param)
    assert await objects(gateway, acme) == {}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=B", b"no boundary"),
        ("multipart/form-data; boundary=B", b'--B\r\ncontent-disposition: form-data; filename="a"\r\n\r\ncut'),
        ("multipart/form-data; boundary=B", b"--B--\r\n"),
        ("application/json", b"{"),
        ("text/plain", b"x"),
    ],
)
async def test_a_malformed_upload_leaves_nothing_behind(gateway, acme, content_type, body):
    headers = {"content-type": content_type}
    status, refused = await told(acme.call("POST", "/documents", data=body, headers=headers))
    assert (status, refused["error"]["code"]) == (400, "invalid_request")
    await until_objects(gateway, acme, 0)


async def test_an_empty_file_is_taken_and_left_to_the_worker_to_judge(gateway, acme):
    status, taken = await told(acme.call("POST", "/documents", data=form(empty=b"")))
    assert status == 202
    _, shown = await told(acme.call("GET", f"/documents/{taken['documentId']}"))
    assert shown["size"] == 0


async def _large(mebibytes: int) -> AsyncIterator[bytes]:
    yield b'--B\r\ncontent-disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'
    for number in range(mebibytes):
        yield bytes([number % 251]) * MIB
    yield b"\r\n--B--\r\n"


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


@pytest.mark.parametrize("declared", [True, False])
async def test_an_upload_of_200_mb_is_refused_and_leaves_nothing_behind(gateway, acme, declared):
    headers = {"content-type": "multipart/form-data; boundary=B"}
    if declared:
        headers["content-length"] = str(sum([len(piece) async for piece in _large(200)]))
    status, refused = await told(acme.call("POST", "/documents", data=_large(200), headers=headers))
    assert (status, refused["error"]["code"]) == (413, "too_large")
    await until_objects(gateway, acme, 0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
async def test_an_upload_of_the_largest_size_streams_through_with_bounded_memory(gateway, acme):
    before = _memory(gateway.process.pid)
    headers = {"content-type": "multipart/form-data; boundary=B"}
    status, _ = await told(acme.call("POST", "/documents", data=_large(100), headers=headers))
    assert status == 202
    assert _memory(gateway.process.pid) - before < 60 * MIB
    (content,) = (await objects(gateway, acme)).values()
    assert content == b"".join([bytes([number % 251]) * MIB for number in range(100)])


async def test_a_client_that_hangs_up_in_the_middle_leaves_nothing_behind(gateway, acme):
    async def half() -> AsyncIterator[bytes]:
        count = 0
        async for piece in _large(40):
            yield piece
            if (count := count + 1) == 30:
                raise ConnectionAbortedError

    headers = {"content-type": "multipart/form-data; boundary=B"}
    with pytest.raises((aiohttp.ClientError, ConnectionAbortedError)):
        await told(acme.call("POST", "/documents", data=half(), headers=headers))
    await until_objects(gateway, acme, 0)
    assert (await told(acme.call("GET", "/documents")))[1]["documents"] == []


async def test_more_uploads_at_once_than_memory_is_for_are_told_to_come_back_and_one_tenant_gets_half(gateway, acme):
    other = await gateway.new_tenant(f"t{os.urandom(4).hex()}")
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        pieces = _large(1)
        yield await anext(pieces)
        await go_on.wait()
        async for piece in pieces:
            yield piece

    headers = {"content-type": "multipart/form-data; boundary=B"}
    uploads = {
        asyncio.create_task(told(tenant.call("POST", "/documents", data=slow(), headers=headers)), name=name)
        for name, tenant in {"acme": acme, "other": other}.items()
        for _ in range(MOST_UPLOADS // 2 + 1)
    }
    refused = set()
    while len(refused) < 2:
        done, uploads = await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
        refused |= done
    assert [(task.result()[0], task.result()[1]["error"]["code"]) for task in refused] == [(503, "unavailable")] * 2
    assert {task.get_name() for task in refused} == {"acme", "other"}
    go_on.set()
    assert [status for status, _ in await asyncio.gather(*uploads)] == [202] * MOST_UPLOADS
    assert (await told(acme.call("POST", "/documents", data=form(a=b"x"))))[0] == 202


async def test_the_same_name_again_replaces_the_document_and_deleting_it_removes_its_bytes(gateway, acme):
    await first_sync_is_over(acme)
    _, first = await told(acme.call("POST", "/documents", data=form(a=b"one")))
    await work_off(acme)
    _, second = await told(acme.call("POST", "/documents", data=form(a=b"two")))
    assert second["documentId"] == first["documentId"]
    (job,) = await work_off(acme, 2)
    assert (await objects(gateway, acme))[job["rawKey"]] == b"two"
    status, removing = await told(acme.call("DELETE", f"/documents/{first['documentId']}"))
    assert (status, removing["status"]) == (202, "Removing")
    await work_off(acme, 3)
    assert (await told(acme.call("GET", f"/documents/{first['documentId']}")))[0] == 404
    await until_objects(gateway, acme, 1)  # the first bytes wait for a worker that may still read them


async def test_an_idempotency_key_makes_one_upload_of_two_and_a_conflict_of_different_ones(gateway, acme):
    headers = {"idempotency-key": "k1"}
    first = await told(acme.call("POST", "/documents", data=form(a=b"one"), headers=headers))
    again = await told(acme.call("POST", "/documents", data=form(a=b"one"), headers=headers))
    assert first == again
    status, refused = await told(acme.call("POST", "/documents", data=form(a=b"two"), headers=headers))
    assert (status, refused["error"]["code"]) == (409, "idempotency_conflict")
    assert list((await until_objects(gateway, acme, 1)).values()) == [b"one"]


async def test_documents_are_listed_in_pages(acme):
    names = [f"{number:02}" for number in range(7)]
    await told(acme.call("POST", "/documents", data=form(**dict.fromkeys(names, b"x"))))
    seen, cursor = [], {}
    while cursor is not None:
        _, page = await told(acme.call("GET", "/documents", params={"limit": "3"} | cursor))
        seen += [one["name"] for one in page["documents"]]
        cursor = {"cursor": page["nextCursor"]} if "nextCursor" in page else None
    assert seen == [f"{name}.md" for name in names]
    status, refused = await told(acme.call("GET", "/documents", params={"cursor": "x"}))
    assert (status, refused["error"]["param"]) == (400, "cursor")


async def test_a_pipeline_without_uploads_says_so(gateway):
    tenant = await gateway.new_tenant(f"t{os.urandom(4).hex()}", sources=[{"s3": {"bucket": "b"}}])
    status, refused = await told(tenant.call("POST", "/documents", data=form(a=b"x")))
    assert status == 400
    assert "takes no uploads" in refused["error"]["message"]


async def test_every_door_asks_for_its_own_key(gateway, acme):
    stranger = await gateway.new_tenant(f"t{os.urandom(4).hex()}", sources=[{"s3": {"bucket": "b"}}])
    claim = {"worker": "w", "waitSeconds": 0}
    answers = [
        (401, acme.call("GET", "/documents", key="loam_wrong")),
        (401, acme.call("GET", "/documents", key=acme.workload_key)),
        (403, acme.call("GET", "/documents", key=acme.reader_key)),
        (401, acme.work("claim", claim, key=acme.key)),
        (200, acme.call("GET", "/documents")),
        (200, acme.work("claim", claim)),
        (409, acme.work("renew", {"epoch": 99})),
    ]
    for expected, call in answers:
        status, body = await told(call)
        assert status == expected, body
    _, mine = await told(acme.call("POST", "/documents", data=form(a=b"x")))
    assert (await told(stranger.call("GET", f"/documents/{mine['documentId']}")))[0] == 404
    assert (await told(stranger.call("DELETE", f"/documents/{mine['documentId']}")))[0] == 404


async def test_a_worker_that_hangs_up_while_it_waits_takes_no_work_with_it(acme):
    await first_sync_is_over(acme)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await told(acme.work("claim", {"worker": "gone", "waitSeconds": 20}))
    await told(acme.call("POST", "/documents", data=form(a=b"x")))
    assert [job["attempt"] for job in await work_off(acme)] == [1]


async def test_a_waiting_worker_hears_204_when_there_is_nothing(acme):
    await first_sync_is_over(acme)
    assert await told(acme.work("claim", {"worker": "w", "waitSeconds": 0.2})) == (204, {})


async def test_versions_and_rollback_say_what_there_is(acme):
    [empty] = (await told(acme.call("GET", "/versions")))[1]["versions"]
    assert (empty["version"], empty["state"], empty["chunks"]) == (1, "Serving", 0)
    assert empty["recipe"] == {"chunking": CHUNKING, "embedding": EMBEDDING}
    status, refused = await told(acme.call("POST", "/rollback", json={"version": 4}))
    assert status == 404
    assert "no index version 4" in refused["error"]["message"]
    await first_sync_is_over(acme)
    _, told_versions = await told(acme.call("GET", "/versions"))
    assert [(one["version"], one["current"]) for one in told_versions["versions"]] == [(1, True)]
    assert (await told(acme.call("POST", "/rollback", json={"version": 1})))[0] == 200


async def test_a_sync_is_asked_for_and_handed_out(acme):
    await first_sync_is_over(acme)
    assert (await told(acme.call("POST", "/sync")))[0] == 202
    await first_sync_is_over(acme)


async def test_a_question_while_the_pipeline_is_away_says_when_to_come_back(acme):
    for path, body in (("/query", {"query": "x"}), ("/chat", {"messages": [{"role": "user", "content": "x"}]})):
        async with acme.call("POST", path, json=body, key=acme.reader_key) as response:
            assert response.status == 503
            assert int(response.headers["retry-after"]) > 0
    assert (await told(acme.call("POST", "/query", json={"query": ""})))[0] == 400


QUESTION = {"messages": [{"role": "user", "content": "why?"}], "sessionId": "s"}


async def test_an_answer_comes_whole_with_what_it_cost_and_what_is_left(gateway, service):
    tenant = await gateway.new_tenant(f"t{os.urandom(4).hex()}", service.url)
    async with tenant.call("POST", "/chat", json=QUESTION, key=tenant.reader_key) as response:
        answer = await response.json()
        headers = response.headers
    assert (answer["content"], answer["sessionId"]) == ("It is so. ✓", "s")
    assert answer["citations"][0]["quote"] == "t"
    assert answer["usage"] == {"inputTokens": 3, "outputTokens": 4, "costUsd": "0.001"}
    assert (headers["x-loam-cost-usd"], headers["x-loam-cache"]) == ("0.001", "miss")
    assert headers["x-loam-budget-remaining-usd"] == "5"
    _, found = await told(tenant.call("POST", "/query", json={"query": "why", "topK": 1}))
    assert found["matches"][0]["documentId"] == "doc_1"


async def events_of(response: aiohttp.ClientResponse) -> list[tuple[str, dict]]:
    frames = (await response.text()).split("\n\n")[:-1]
    pairs = [frame.split("\n") for frame in frames]
    return [(name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))) for name, data in pairs]


async def test_an_answer_is_streamed_event_by_event(gateway, service):
    tenant = await gateway.new_tenant(f"t{os.urandom(4).hex()}", service.url)
    async with tenant.call("POST", "/chat", json=QUESTION | {"stream": True}) as response:
        assert response.content_type == "text/event-stream"
        assert await events_of(response) == service.events


async def test_a_stream_that_is_cut_upstream_ends_with_an_error_event(gateway, service):
    tenant = await gateway.new_tenant(f"t{os.urandom(4).hex()}", service.url)
    service.events = service.events[:2]
    async with tenant.call("POST", "/chat", json=QUESTION | {"stream": True}) as response:
        events = await events_of(response)
    assert [event for event, _ in events] == ["token", "citation", "error"]
    assert events[-1][1]["error"]["code"] == "unavailable"


async def test_hanging_up_on_a_stream_ends_the_call_to_the_pipeline(gateway, service):
    tenant = await gateway.new_tenant(f"t{os.urandom(4).hex()}", service.url)
    service.pause, service.events = 0.05, service.events[:1] * 400
    async with tenant.call("POST", "/chat", json=QUESTION | {"stream": True}) as response:
        await response.content.readline()
        response.close()
    async with asyncio.timeout(5):
        await service.hung_up.wait()


async def test_a_deleted_pipeline_leaves_nothing_and_its_name_is_free(gateway, acme):
    await told(acme.call("POST", "/documents", data=form(a=b"x")))
    path = f"/admin/v1/tenants/{acme.name}/pipelines/handbook"
    put = {"uid": "3", "spec": SPEC, "endpoint": "http://127.0.0.1:1"}
    assert (await gateway.as_operator("PUT", path, put))[0] == 409
    assert await gateway.as_operator("DELETE", f"{path}?uid=3") == (200, {"done": True})
    assert len(await objects(gateway, acme)) == 1
    assert await gateway.as_operator("DELETE", f"{path}?uid=2") == (200, {"done": True})
    assert await objects(gateway, acme) == {}
    assert (await told(acme.call("GET", "/documents")))[0] == 404
    assert (await gateway.as_operator("PUT", path, put))[0] == 200


async def test_a_deleted_tenant_takes_its_documents_along(gateway, acme):
    await told(acme.call("POST", "/documents", data=form(a=b"x")))
    path = f"/admin/v1/tenants/{acme.name}?uid=1&policy=Delete"
    assert await gateway.as_operator("DELETE", path) == (200, {"done": True})
    assert await objects(gateway, acme) == {}
    assert (await told(acme.call("GET", "/documents")))[0] in {401, 403}


async def test_retained_documents_come_back_to_the_same_tenant_and_to_no_other(gateway, acme):
    await first_sync_is_over(acme)
    _, taken = await told(acme.call("POST", "/documents", data=form(a=b"kept")))
    await work_off(acme, 4)
    path = f"/admin/v1/tenants/{acme.name}"
    assert await gateway.as_operator("DELETE", f"{path}?uid=1&policy=Retain") == (200, {"done": True})
    assert (await told(acme.call("GET", "/documents")))[0] in {401, 403}
    status, refused = await gateway.as_operator("PUT", path, {"uid": "stranger"})
    assert status == 409
    assert "adopt" in refused["error"]["message"]
    assert list((await objects(gateway, acme)).values()) == [b"kept"]
    again = await gateway.new_tenant(acme.name)
    _, page = await told(again.call("GET", "/documents"))
    assert [(one["documentId"], one["status"]) for one in page["documents"]] == [(taken["documentId"], "Ready")]
    _, versions = await told(again.call("GET", "/versions"))
    assert [one["version"] for one in versions["versions"]] == [1]


@pytest.mark.parametrize(
    "document",
    [
        {"name": "a.md", "text": "x", "mediaType": "text/plain\r\nx-amz-acl: public-read"},
        {"name": "a.md", "text": "x", "mediaType": "text/\0"},
        {"name": "a.md", "text": "x", "mediaType": "text/" + "x" * 10_000},
        {"name": "a.md", "contentBase64": "é"},
        {"name": "a\nb.md", "text": "x"},
    ],
)
async def test_a_document_with_odd_letters_about_it_is_refused_before_it_is_stored(gateway, acme, document):
    status, answer = await told(acme.call("POST", "/documents", json=document))
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert await objects(gateway, acme) == {}


@pytest.mark.parametrize(
    ("boundary", "media_type"), [("B" * 5000, b"text/plain"), ("B", b"text/\x01"), ("B", b"text/\xff")]
)
async def test_a_multipart_body_with_odd_framing_is_refused(acme, boundary, media_type):
    head = b'Content-Disposition: form-data; name="f"; filename="a.md"\r\nContent-Type: ' + media_type
    mark = boundary.encode()
    body = b"--" + mark + b"\r\n" + head + b"\r\n\r\nx\r\n--" + mark + b"--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    status, answer = await told(acme.call("POST", "/documents", data=body, headers=headers))
    assert (status, answer["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("number", [-1, 2**31, 2**63, 2**80])
async def test_a_worker_cannot_commit_numbers_that_no_index_has(acme, number):
    _, work = await told(acme.work("claim", {"worker": "test", "waitSeconds": 5}))
    where = {"table": f"handbook-v{number}", "tableVersion": 1, "chunks": 1, "indexVersion": number}
    body = {"epoch": work["epoch"], "heads": [where | {"embedding": EMBEDDING}], "results": []}
    status, answer = await told(acme.work("commit", body))
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
