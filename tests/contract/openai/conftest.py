"""Exchanges with the real Bedrock, as they were recorded."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

_ROOT = Path(__file__).parents[3]
_DAMAGED = "test_bedrock_model_other_parameters"


def _recorded() -> Iterator[tuple[str, dict[str, Any]]]:
    folder = Path(os.environ.get("LOAM_SHARED", _ROOT.parent / "shared")) / "data" / "bedrock_cassettes"
    if not folder.is_dir():
        pytest.skip(f"no recorded exchanges in {folder}; set LOAM_SHARED to where they are")
    for path in sorted(folder.glob("*.yaml")):
        for exchange in yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["interactions"]:
            if exchange["response"]["status"]["code"] == 200:
                yield path.stem, exchange


def _exchanges() -> Iterator[tuple[str, str, bytes]]:
    for name, exchange in _recorded():
        yield name, exchange["request"]["uri"].rsplit("/", 1)[1], _body(exchange["response"])


def _body(answer: dict[str, Any]) -> bytes:
    if "parsed_body" in answer:
        return json.dumps(answer["parsed_body"]).encode()
    body = answer["body"]["string"]
    return body if isinstance(body, bytes) else body.encode()


@pytest.fixture(scope="session")
def recorded_answers() -> list[tuple[str, dict[str, object]]]:
    """Answers of Converse, by the name of their recording."""
    return [(name, json.loads(body)) for name, operation, body in _exchanges() if operation == "converse"]


@pytest.fixture(scope="session")
def recorded_streams() -> list[tuple[str, bytes]]:
    """Bodies of ConverseStream."""
    return [(name, body) for name, operation, body in _exchanges() if operation == "converse-stream"]


@pytest.fixture(scope="session")
def recorded_requests() -> list[tuple[str, str, dict[str, Any]]]:
    """Bodies that Converse and ConverseStream took, by the name of their recording, and the model's id."""
    found = []
    # One recording's request was cut when it was kept, and is no JSON.
    for name, exchange in _recorded():
        path = urlsplit(exchange["request"]["uri"]).path
        *_, model, operation = ["", "", *path.rsplit("/", 2)]
        if operation in {"converse", "converse-stream"} and name != _DAMAGED:
            found.append((name, unquote(model), _asked(exchange["request"])))
    return found


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    parsed = request.get("parsed_body")
    body: dict[str, Any] = json.loads(request["body"]) if parsed is None else parsed
    return body
