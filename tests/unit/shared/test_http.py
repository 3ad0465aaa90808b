"""Every service answers errors in one shape, with a request id, and gives nothing away."""

from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import FastAPI, Query
from httpx2 import ASGITransport, AsyncClient

from loam_shared import errors, http


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[AsyncClient]:
    app = FastAPI()
    http.install(app)

    @app.get("/known")
    async def known() -> None:
        raise errors.RateLimitedError("too many requests; wait", retry_after=7, limit="requestsPerMinute")

    @app.get("/unknown")
    async def unknown() -> None:
        raise RuntimeError("a secret detail")

    @app.put("/known")
    async def put_known() -> None:
        pass

    @app.get("/typed")
    async def typed(number: Annotated[int, Query()]) -> int:
        return number

    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_an_error_carries_code_message_details_and_when_to_come_back(client: AsyncClient) -> None:
    answer = await client.get("/known", headers={"x-request-id": "mine-1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json() == {
        "error": {
            "type": "rate_limit_error",
            "code": "rate_limited",
            "message": "too many requests; wait",
            "param": None,
            "requestId": "mine-1",
            "limit": "requestsPerMinute",
        }
    }


async def test_an_unexpected_error_is_answered_without_its_details(client: AsyncClient) -> None:
    answer = await client.get("/unknown")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json()["error"]["requestId"]


async def test_a_bad_parameter_is_named(client: AsyncClient) -> None:
    answer = await client.get("/typed", params={"number": "many"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "number"


@pytest.mark.parametrize(
    ("path", "status", "code"), [("/nowhere", 404, "not_found"), ("/known", 405, "invalid_request")]
)
async def test_the_frameworks_own_errors_have_the_same_shape(
    client: AsyncClient, path: str, status: int, code: str
) -> None:
    answer = await client.request("DELETE" if status == 405 else "GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("forged", ["a b", "x" * 129, "line\tbreak", ""])
async def test_a_request_id_that_could_forge_logs_is_replaced(client: AsyncClient, forged: str) -> None:
    answer = await client.get("/typed", params={"number": "1"}, headers={"x-request-id": forged})
    assert answer.headers["x-request-id"] not in {forged, ""}


async def test_a_405_names_all_methods_of_the_path(client: AsyncClient) -> None:
    answer = await client.delete("/known")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PUT")
