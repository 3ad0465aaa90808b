"""Recorded exchanges with the real Bedrock: the same requests get answers of the same shapes."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from botocore.eventstream import EventStreamBuffer

_SHARED = Path(os.environ.get("LOAM_SHARED") or Path(__file__).parents[4] / "shared")
_FOLDER = _SHARED / "data" / "bedrock_cassettes"
# Fields that Bedrock began or ceased to send in the years of the recordings.
_USAGE_DIFFERS = {
    "cacheDetails",
    "serverToolUsage",
    "cacheReadInputTokens",
    "cacheReadInputTokenCount",
    "cacheWriteInputTokens",
    "cacheWriteInputTokenCount",
}
# Guardrails and Nova's built-in code interpreter run on AWS alone.
_NOT_SERVED = {"trace"}
_GRAMMAR = re.compile(
    r"messageStart (?:(?:contentBlockStart )?(?:contentBlockDelta )+contentBlockStop )+messageStop metadata "
)


def _exchanges():
    for file in sorted(_FOLDER.glob("*.yaml")):
        recorded = yaml.safe_load(file.read_text())["interactions"]
        for index, exchange in enumerate(recorded):
            if "/model/" in exchange["request"]["uri"] and _is_whole(exchange["request"]):
                yield pytest.param(exchange, id=f"{file.stem.removeprefix('test_')}-{index}")


def _is_whole(request):
    # One body was cut when it was recorded: its length and its Content-Length differ.
    try:
        return bool(request.get("parsed_body") or json.loads(request["body"]))
    except json.JSONDecodeError:
        return False


def _recorded_body(response):
    if "parsed_body" in response:
        return response["parsed_body"]
    raw = response["body"]["string"]
    return _messages(raw) if isinstance(raw, bytes) and b":event-type" in raw else json.loads(raw)


def _messages(raw):
    buffer = EventStreamBuffer()
    buffer.add_data(raw)
    return [(message.headers, json.loads(message.payload)) for message in buffer]


def _same_usage(ours, recorded):
    assert set(recorded) ^ set(ours) <= _USAGE_DIFFERS
    assert ours["totalTokens"] > 0


def _same_document(ours, recorded):
    assert ours.keys() == recorded.keys() - _NOT_SERVED
    assert ours["output"]["message"].keys() == recorded["output"]["message"].keys()
    assert ours["metrics"].keys() == recorded["metrics"].keys()
    shapes = {
        kind: block[kind].keys()
        for block in recorded["output"]["message"]["content"]
        for kind in block
        if kind != "text"
    }
    for block in ours["output"]["message"]["content"]:
        (kind,) = block
        assert kind in ("text", "reasoningContent") or block[kind].keys() <= shapes.get(kind, block[kind].keys())
    _same_usage(ours["usage"], recorded["usage"])


def _same_stream(ours, recorded):
    for messages in (ours, recorded):
        assert _GRAMMAR.fullmatch("".join(f"{headers[':event-type']} " for headers, _ in messages))
    for headers, _ in ours:
        assert headers == {**recorded[0][0], ":event-type": headers[":event-type"]}
        assert list(headers) == list(recorded[0][0])
    shapes = {headers[":event-type"]: payload.keys() for headers, payload in recorded}
    for headers, payload in ours:
        assert payload.keys() == shapes.get(headers[":event-type"], payload.keys())
    _same_usage(ours[-1][1]["usage"], recorded[-1][1]["usage"])


@pytest.mark.skipif(
    not _FOLDER.is_dir(), reason="the recordings are not here: set LOAM_SHARED to the folder with data/"
)
@pytest.mark.parametrize("exchange", list(_exchanges()))
def test_a_recorded_request_gets_an_answer_of_the_recorded_shape(shared_bedrock, exchange):
    request, response = exchange["request"], exchange["response"]
    path = request["uri"][request["uri"].index("/model/") :]
    body = request.get("parsed_body") or request["body"]
    shared_bedrock.play()
    status, headers, raw = shared_bedrock.post(path, body if isinstance(body, bytes | dict) else body.encode())
    recorded = _recorded_body(response)
    assert status == response["status"]["code"], raw
    assert headers["content-type"] == response["headers"]["content-type"][0]
    if isinstance(recorded, list):
        _same_stream(_messages(raw), recorded)
    elif "output" in recorded:
        _same_document(json.loads(raw), recorded)
    elif status == 200:
        assert json.loads(raw).keys() == recorded.keys()
    else:
        assert json.loads(raw) == recorded
