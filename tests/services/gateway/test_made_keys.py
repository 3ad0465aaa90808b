"""A key is good for what the keys that it was made with are good for: now, and not only when it was made."""

import socket
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from loam_shared.credentials import hash_api_key

from ._platform import ALL_SCOPES, eventually

NEW = {"name": "child", "scopes": ["ai:complete", "usage:read"]}


@pytest.fixture
def maker(tenant):
    """A manifest's key, and how the operator changes it."""
    secret = tenant.new_key("maker")

    def put(**changed):
        body = {"name": "maker", "hashes": [{"sha256": hash_api_key(secret)}], "scopes": ALL_SCOPES} | changed
        assert tenant.gateway.put(f"/tenants/{tenant.name}/keys/maker", body).status_code == 204

    return secret, put


def made_with(gateway, secret) -> str:
    answer = httpx.post(f"{gateway.public}/v1/auth/keys", json=NEW, headers=bearer(secret), timeout=30)
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["apiKey"]
    return key


def bearer(key) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def may(gateway, key) -> int:
    """What a key is told that wants to see what was used."""
    return httpx.get(f"{gateway.public}/v1/usage", headers=bearer(key), timeout=30).status_code


def test_a_scope_that_is_taken_from_a_key_is_taken_from_all_that_it_made(gateway, maker):
    secret, put = maker
    child = made_with(gateway, secret)
    assert may(gateway, child) == 200
    put(scopes=["ai:complete", "keys:write"])
    eventually(lambda: may(gateway, child) == 403, "the child lost the scope, too")
    put()
    eventually(lambda: may(gateway, child) == 200, "the child has it again")


def test_a_key_ends_with_the_one_that_made_it(gateway, maker):
    secret, put = maker
    grandchild = made_with(gateway, secret)
    put(expiresAt=(datetime.now(UTC) + timedelta(seconds=1)).isoformat())
    eventually(lambda: may(gateway, grandchild) == 401, "the child ended")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/auth/keys", b'{"name": "late", "scopes": ["usage:read"]}'),
        ("PUT", "/v1/usage/budget", b'{"monthlyUsd": "0"}'),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_kept_waiting_for_its_body_outlives_no_revocation(gateway, tenant, maker, method, path, body, chunked):
    secret, _ = maker
    address = urlsplit(gateway.public)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n"
    head += f"Authorization: Bearer {secret}\r\n\r\n"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head.encode() + sent[:5])
        assert gateway.delete(f"/tenants/{tenant.name}/keys/maker").status_code == 204
        eventually(lambda: may(gateway, secret) == 401, "the key is revoked")
        connection.sendall(sent[5:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"apiKey" not in answer
