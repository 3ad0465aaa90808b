"""Everything that can go wrong with Bedrock can be made to go wrong here, and the SDK sees it as on AWS."""

import json
import socket
import time

import botocore.exceptions
import pytest
import urllib3
from botocore.eventstream import EventStreamBuffer

LONG = "Say: " + "word " * 200


def _body(text="Say: hello"):
    return {"messages": [{"role": "user", "content": [{"text": text}]}]}


def _seen(stream):
    """The events of a stream that breaks off, and the error that ended it."""
    seen = []
    try:
        seen.extend(stream)
    except (urllib3.exceptions.ProtocolError, botocore.exceptions.EventStreamError) as error:
        return seen, error
    finally:
        stream.close()
    return seen, None


def test_throttling_is_retried_by_the_sdk_and_billed_once(bedrock, ask, haiku):
    bedrock.play({"operation": "converse", "times": 2, "fault": {"error": "throttle"}})
    client = bedrock.client(retries={"total_max_attempts": 4, "mode": "standard"})
    answer = client.converse(**ask("Say: hello"))
    client.close()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    assert bedrock.billed(haiku)["calls"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "ThrottlingException",
        "ModelNotReadyException",
        "AccessDeniedException",
        "ResourceNotFoundException",
        "ModelTimeoutException",
        "ModelErrorException",
        "InternalServerException",
        "ServiceUnavailableException",
        "ValidationException",
    ],
)
def test_each_error_is_raised_as_the_sdks_own_class_and_bills_nothing(bedrock, client, ask, haiku, name):
    bedrock.play({"fault": {"error": name, "message": "as asked"}})
    with pytest.raises(getattr(client.exceptions, name), match="as asked"):
        client.converse(**ask("hi"))
    with pytest.raises(getattr(client.exceptions, name)):
        client.converse_stream(**ask("hi"))
    assert not bedrock.billed(haiku)


def test_a_cut_stream_ends_without_metadata_and_bills_what_was_sent(bedrock, client, ask, haiku):
    bedrock.play({"operation": "converse-stream", "fault": {"cutAfter": 5}})
    seen, error = _seen(client.converse_stream(**ask(LONG))["stream"])
    assert isinstance(error, urllib3.exceptions.ProtocolError)
    assert not any("metadata" in event for event in seen)
    assert len(seen) == 5
    assert 0 < bedrock.billed(haiku)["outputTokens"] < 40


def test_a_cut_answer_never_arrives_but_is_billed(bedrock, client, ask, haiku):
    bedrock.play({"fault": {"cutAfter": 0}})
    with pytest.raises(botocore.exceptions.HTTPClientError):
        client.converse(**ask("Say: hello"))
    assert bedrock.billed(haiku)["calls"] == 1


def test_an_error_inside_a_stream_comes_as_an_exception_event(bedrock, client, ask):
    bedrock.play({"fault": {"errorAfter": 3, "error": "ModelStreamErrorException", "message": "broke off"}})
    seen, error = _seen(client.converse_stream(**ask(LONG))["stream"])
    assert isinstance(error, botocore.exceptions.EventStreamError)
    assert error.response["Error"] == {"Code": "modelStreamErrorException", "Message": "broke off"}
    assert len(seen) == 3


def test_delays_hold_the_answer_and_each_event_back(bedrock, client, ask):
    bedrock.play({"fault": {"delayMs": 150}})
    started = time.monotonic()
    client.converse(**ask("Say: hello"))
    assert time.monotonic() - started >= 0.15
    bedrock.play({"fault": {"eventDelayMs": 30}})
    started = time.monotonic()
    events = list(client.converse_stream(**ask("Say: hello"))["stream"])
    assert time.monotonic() - started >= 0.03 * (len(events) - 1)


def test_a_caller_who_hangs_up_is_billed_for_what_was_produced(bedrock, client, ask, haiku):
    bedrock.play({"fault": {"eventDelayMs": 20}})
    stream = client.converse_stream(**ask(LONG))["stream"]
    next(iter(stream))
    stream.close()
    client.close()
    deadline, before = time.monotonic() + 5, -1
    while (now := bedrock.billed(haiku)["outputTokens"]) != before and time.monotonic() < deadline:
        before = now
        time.sleep(0.1)
    assert now == before < 100


def test_a_scenario_meets_the_chosen_calls_only(bedrock, client, ask):
    bedrock.play({"model": "*haiku*", "contains": "unlucky", "skip": 1, "times": 1, "fault": {"error": "500"}})
    client.converse(**ask("Say: unlucky"))
    with pytest.raises(client.exceptions.InternalServerException):
        client.converse(**ask("Say: unlucky"))
    for request in (ask("Say: unlucky"), ask("Say: lucky"), ask("Say: unlucky", "amazon.nova-lite-v1:0")):
        client.converse(**request)


def test_a_scripted_answer_replaces_the_prompts_own(bedrock, client, ask):
    bedrock.play({"fault": {"text": "It was <b>scripted</b>."}})
    answer = client.converse(**ask("hi", inferenceConfig={"maxTokens": 2}))
    assert answer["output"]["message"]["content"] == [{"text": "It was"}]


def test_a_scenario_file_is_played_from_the_start(start, ask, tmp_path):
    file = tmp_path / "scenario.json"
    file.write_text(json.dumps({"rules": [{"fault": {"error": "503"}}]}))
    with start(LOAM_SCENARIO_FILE=str(file)) as bedrock:
        client = bedrock.client()
        with pytest.raises(client.exceptions.ServiceUnavailableException):
            client.converse(**ask("hi"))
        client.close()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("throttle", 429),
        ("error=503", 503),
        ('{"error": "ModelTimeoutException"}', 408),
        ("delay=1", 200),
        ("wat=1", 400),
    ],
)
def test_a_header_sets_the_fault_of_one_request(bedrock, header, status):
    path = "/model/amazon.nova-lite-v1%3A0/converse"
    assert bedrock.post(path, _body(), **{"x-loam-local-fault": header})[0] == status
    assert bedrock.post(path, _body())[0] == 200


def test_the_event_stream_is_whole_however_it_is_cut(bedrock):
    _, headers, raw = bedrock.post("/model/amazon.nova-lite-v1%3A0/converse-stream", _body())
    assert headers["content-type"] == "application/vnd.amazon.eventstream"
    for size in (1, 2, 3, 7, 12, 16, 100, len(raw)):
        buffer, kinds = EventStreamBuffer(), []
        for start in range(0, len(raw), size):
            buffer.add_data(raw[start : start + size])
            kinds.extend(message.headers[":event-type"] for message in buffer)
        assert kinds[0] == "messageStart"
        assert kinds[-2:] == ["messageStop", "metadata"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff"])
def test_a_body_that_is_no_object_is_a_validation_error(bedrock, body):
    status, headers, _ = bedrock.post("/model/amazon.nova-lite-v1%3A0/converse", body)
    assert (status, headers["x-amzn-errortype"]) == (400, "ValidationException")


def test_an_unknown_route_and_a_bad_scenario_are_told_in_words(bedrock):
    assert bedrock.post("/model/amazon.nova-lite-v1%3A0/sing", {})[0] == 404
    with pytest.raises(OSError, match="400"):
        bedrock.play({"fault": {"error": "Nonsense"}})


def test_sigterm_ends_it_within_seconds_even_in_the_middle_of_a_stream(start, ask):
    with start() as bedrock:
        bedrock.play({"fault": {"eventDelayMs": 200}})
        client = bedrock.client()
        stream = client.converse_stream(**ask(LONG))["stream"]
        next(iter(stream))
        started = time.monotonic()
        bedrock.process.terminate()
        bedrock.process.wait(10)
        assert time.monotonic() - started < 5
        stream.close()
        client.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(bedrock.url.rpartition(":")[2])))
