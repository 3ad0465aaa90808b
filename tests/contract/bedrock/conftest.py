"""Real stand-ins as processes of their own, and AWS's own clients to judge them."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.config import Config

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"


class Bedrock:
    """A running stand-in."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def client(self, **config: Any) -> Any:
        options = {"retries": {"total_max_attempts": 1}, "read_timeout": 20} | config
        return boto3.client(
            "bedrock-runtime",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="wJalrXUtnFEMI",
            config=Config(**options),
        )

    def control(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def play(self, *rules: dict[str, Any]) -> None:
        self.control("PUT", "/_local/scenario", {"rules": rules})

    def billed(self, model_id: str) -> dict[str, int]:
        return self.control("GET", "/_local/billed")["models"].get(model_id, {})

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """A request that no SDK would send; the answer as status, headers and bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Authorization": "Bearer t"} | headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()


@contextmanager
def _running(**environment: str) -> Iterator[Bedrock]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "loam_bedrock_local"],
        env=os.environ | {"LOAM_PORT": str(port), "LOAM_HOST": "127.0.0.1"} | environment,
    )
    try:
        bedrock = Bedrock(f"http://127.0.0.1:{port}", process)
        _await_health(bedrock)
        yield bedrock
    finally:
        process.terminate()
        process.wait(10)


def _await_health(bedrock: Bedrock) -> None:
    deadline = time.monotonic() + 20
    while bedrock.process.poll() is None and time.monotonic() < deadline:
        try:
            bedrock.control("GET", "/healthz")
        except urllib.error.URLError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("the stand-in did not start")


@pytest.fixture(scope="session")
def start() -> Callable[..., Any]:
    """Start a stand-in with settings of one's own: ``with start(LOAM_ACCEPT_KEYS=…) as bedrock``."""
    return _running


@pytest.fixture(scope="session")
def shared_bedrock() -> Iterator[Bedrock]:
    with _running() as bedrock:
        yield bedrock


@pytest.fixture
def bedrock(shared_bedrock: Bedrock) -> Bedrock:
    """A stand-in without faults and with nothing billed."""
    shared_bedrock.play()
    shared_bedrock.control("DELETE", "/_local/billed")
    return shared_bedrock


@pytest.fixture
def client(bedrock: Bedrock) -> Iterator[Any]:
    """An unmodified boto3 client that does not retry."""
    client = bedrock.client()
    yield client
    client.close()


@pytest.fixture(scope="session")
def haiku() -> str:
    return HAIKU


@pytest.fixture(scope="session")
def titan() -> str:
    return TITAN


@pytest.fixture(scope="session")
def ask() -> Callable[..., dict[str, Any]]:
    """Arguments of Converse for one question."""

    def build(text: str, model: str = HAIKU, **more: Any) -> dict[str, Any]:
        return {"modelId": model, "messages": [{"role": "user", "content": [{"text": text}]}], **more}

    return build
