"""The public listener does what its OpenAPI schema says, also when it is asked for nonsense."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from loam_gateway.public.schema import OPERATIONS

from ..services._servers.embedded import free_ports
from ..services.gateway._platform import PIPELINE

CONFIG = Path(__file__).with_name("schemathesis.toml")
SCOPES = (
    "ai:complete",
    "ai:embed",
    "usage:read",
    "budget:write",
    "keys:write",
    "rag:query",
    "rag:write",
)
# In `make test` it is quick and always asks the same; `make conformance` gives it ten minutes and a new seed.
SECONDS = os.environ.get("LOAM_CONFORMANCE_SECONDS")
QUICK = ["--max-time", "25", "--seed", "4", "--generation-deterministic"]


@pytest.fixture
def schema(gateway):
    answer = httpx.get(f"{gateway.public}/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(schema):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_described_and_nothing_that_is_no_route(schema):
    assert set(operations(schema)) == set(OPERATIONS)


def test_every_operation_has_a_body_an_answer_errors_and_examples(schema):
    for name, operation in operations(schema).items():
        assert operation["tags"], name
        good = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert all(answer.get("content") or "204" in operation["responses"] for answer in good), name
        assert "422" not in operation["responses"] or "x-loam-cost-usd" in str(good), f"{name}: FastAPI's own error"
        if name.startswith(("POST", "PUT")) and "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["example"], name
        if operation.get("security") != []:
            assert {"401", "403", "503"} <= set(operation["responses"]), name


def test_schemathesis_finds_nothing(gateway, tenant, tmp_path):
    [nobody] = free_ports(1)
    pipeline = {"uid": "p", "spec": PIPELINE, "endpoint": f"http://127.0.0.1:{nobody}"}
    assert gateway.put(f"/tenants/{tenant.name}/pipelines/handbook", pipeline).is_success
    program = str(Path(sys.executable).with_name("schemathesis"))
    span = ["--max-time", SECONDS, "--generation-database", "none"] if SECONDS else QUICK
    location = ["run", f"{gateway.public}/openapi.json", *span]
    key = ["-H", f"Authorization: Bearer {tenant.new_key(scopes=SCOPES)}"]
    found = subprocess.run(
        [program, "--config-file", str(CONFIG), *location, *key],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=float(SECONDS or 60) * 2,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "unexpected error" not in gateway.log()
