"""Exchanges with the real Bedrock, as they were recorded."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[3]


def _exchanges() -> Iterator[tuple[str, str, bytes]]:
    folder = Path(os.environ.get("LOAM_SHARED", _ROOT.parent / "shared")) / "data" / "bedrock_cassettes"
    if not folder.is_dir():
        pytest.skip(f"no recorded exchanges in {folder}; set LOAM_SHARED to where they are")
    for path in sorted(folder.glob("*.yaml")):
        for exchange in yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["interactions"]:
            answer = exchange["response"]
            if answer["status"]["code"] == 200:
                yield path.stem, exchange["request"]["uri"].rsplit("/", 1)[1], _body(answer)


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
