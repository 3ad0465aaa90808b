"""Which web pages may call the gateway from a browser."""

import httpx2 as httpx
import pytest
from websockets.exceptions import InvalidStatus

from ._platform import GatewayProcess, Servers
from ._sockets import opened

PAGE = "https://app.example.com"


@pytest.fixture(scope="module")
def listing(folder, servers, gateway):
    """A gateway that lists one page's origin; it shares everything with the other."""
    own = Servers(**vars(servers) | {"more": {"LOAM_CORS_ORIGINS": f"{PAGE}/, https://other.example.com"}})
    process = GatewayProcess(folder, own)
    for name in ("LOAM_ENCRYPTION_KEY_FILE", "LOAM_SIGNING_KEY_FILE"):
        process.environment[name] = gateway.environment[name]
    yield process.start()
    process.stop()


def preflight(gateway, origin):
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return httpx.options(f"{gateway.public}/v1/complete", headers={"origin": origin} | asked)


def test_a_listed_page_may_call_and_read_costs_and_ids(listing, tenant):
    allowed = preflight(listing, PAGE)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, PAGE)
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    assert "POST" in allowed.headers["access-control-allow-methods"]
    key = tenant.new_key()
    answer = tenant.http(key, listing.public).get("/v1/models", headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in answer.headers
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"x-loam-cost-usd", "x-request-id", "retry-after", "x-loam-stream-id"} <= exposed


def test_a_listed_page_can_read_errors_too(listing):
    refused = httpx.get(f"{listing.public}/v1/models", headers={"origin": PAGE})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)


@pytest.mark.parametrize("origin", ["https://evil.example.com", f"{PAGE}.evil.com", "http://app.example.com", "null"])
def test_a_page_that_is_not_listed_may_not_call(listing, origin):
    assert "access-control-allow-origin" not in preflight(listing, origin).headers
    answer = httpx.get(f"{listing.public}/v1/models", headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_without_a_list_nothing_is_said_to_any_page(gateway):
    assert "access-control-allow-origin" not in preflight(gateway, PAGE).headers


@pytest.mark.parametrize("origin", [PAGE, "https://other.example.com", None])
async def test_a_websocket_opens_for_listed_pages_and_for_those_that_are_no_pages(listing, tenant, origin):
    async with opened(listing, tenant.new_key(), origin=origin) as socket:
        await socket.send("p", "ping")
        assert await socket.next() == {"id": "p", "event": "pong"}


async def test_a_websocket_opens_for_pages_of_its_own_origin(gateway, tenant):
    async with opened(gateway, tenant.new_key(), origin=gateway.public) as socket:
        await socket.send("p", "ping")
        assert (await socket.next())["event"] == "pong"


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", f"{PAGE}:8443"])
async def test_a_websocket_of_another_page_is_refused_even_with_a_good_key(listing, tenant, origin):
    with pytest.raises(InvalidStatus) as refused:
        async with opened(listing, tenant.new_key(), origin=origin):
            pass
    assert refused.value.response.status_code == 403
