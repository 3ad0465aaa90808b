"""Nothing is lost between OpenAI's words and Converse's, judged by exchanges with the real Bedrock."""

import json

import pytest
from botocore.eventstream import EventStreamBuffer

from loam_gateway.completions.converse import to_converse
from loam_gateway.completions.converse.reply import ConverseChunks, said
from loam_gateway.completions.reply import Heading
from loam_gateway.completions.request import ChatRequest, parse

from ._inverse import Inexpressible, message_of, normal, openai_request

# What OpenAI's API has no word for. A shape that is not among these has to be carried over.
INEXPRESSIBLE = {
    "additionalModelRequestFields.inferenceConfig": "parameters of one model, such as top_k",
    "additionalModelRequestFields.top_k": "the same",
    "additionalModelRequestFields.thinking": "a budget of thinking in tokens, or thinking without a word for how hard",
    "guardrailConfig": "a guardrail",
    "performanceConfig": "latency, which has another price",
    "serviceTier": "a tier of service, which has another price",
    "systemTool": "tools that the provider runs",
    "toolResult of an assistant": "what those have said",
}


def mapped(request, model_id="m"):
    made = to_converse(parse(ChatRequest, json.dumps(request).encode()), model_id=model_id)
    return made, made.body | {"inferenceConfig": made.inference}


def test_every_recorded_request_comes_out_of_its_openai_form_as_it_was(recorded_requests):
    inexpressible, carried = {}, 0
    for name, model_id, body in recorded_requests:
        try:
            request = openai_request(body)
        except Inexpressible as reason:
            inexpressible[str(reason)] = name
            continue
        made, got = mapped(request, model_id)
        # The limit of the answer is the ledger's to give.
        wanted = normal(body | {"inferenceConfig": _without_limit(body)})
        assert normal(got) == wanted, name
        assert made.dropped == (), name
        carried += 1
    assert set(inexpressible) == set(INEXPRESSIBLE)
    assert carried >= 60, carried


def _without_limit(body):
    return {name: value for name, value in body.get("inferenceConfig", {}).items() if name != "maxTokens"}


def given_back(message):
    """What `message`, an answer of ours, is when the caller sends it back in the next turn."""
    _, body = mapped({"model": "m", "messages": [{"role": "user", "content": "hi"}, message]})
    return body["messages"][1]["content"]


def kept(blocks):
    """What of an answer's blocks can be given back: texts are one, and reasoning needs a signature."""
    done = {block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block}
    reasoning = [block for block in blocks if "reasoningContent" in block and _signed(block["reasoningContent"])]
    text = "".join(block["text"] for block in blocks if "text" in block)
    uses = [_plain(block) for block in blocks if "toolUse" in block and block["toolUse"]["toolUseId"] not in done]
    return [*reasoning, *([{"text": text}] if text.strip() else []), *uses]


def _plain(block):
    """The call without its type, which is the usual one."""
    return {"toolUse": {name: value for name, value in block["toolUse"].items() if name != "type"}}


def _signed(reasoning):
    return "redactedContent" in reasoning or "signature" in reasoning["reasoningText"]


def test_every_recorded_answer_can_be_given_back_in_the_next_turn_as_it_came(recorded_answers):
    for name, reply in recorded_answers:
        blocks = reply["output"]["message"]["content"]
        if kept(blocks):
            message = said(reply, json_answer=False).message
            assert given_back(message) == kept(blocks), name


def test_every_recorded_stream_adds_up_to_a_message_that_can_be_given_back(recorded_streams):
    for name, stream in recorded_streams:
        events = spoken(stream)
        maker = ConverseChunks(Heading.new("m"), json_answer=False)
        chunks = [chunk for event, payload in events for chunk in maker.chunks(event, payload)]
        assert given_back(added_up(chunks)) == kept(blocks_of(events)), name


def spoken(stream):
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    return [(message.headers[":event-type"], json.loads(message.payload)) for message in buffer]


def added_up(chunks):
    """What a client makes of chunks: pieces of one index belong together."""
    message, calls, details = {"role": "assistant", "content": ""}, {}, {}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        message["content"] += delta.get("content") or ""
        for call in delta.get("tool_calls", ()):
            known = calls.setdefault(call["index"], {"function": {"name": "", "arguments": ""}})
            known |= {"id": call["id"]} if "id" in call else {}
            for field, piece in call["function"].items():
                known["function"][field] += piece
        for detail in delta.get("reasoning_details", ()):
            known = details.setdefault(detail["index"], {"type": detail["type"]})
            for field in {"text", "signature", "data"} & set(detail):
                known[field] = known.get(field, "") + detail[field]
    message |= {"tool_calls": list(calls.values())} if calls else {}
    return message | ({"reasoning_details": list(details.values())} if details else {})


def blocks_of(events):
    """The blocks that the events of a stream add up to."""
    blocks, server_side = {}, set()
    for event, payload in events:
        index = payload.get("contentBlockIndex")
        if event == "contentBlockStart":
            [(kind, start)] = payload["start"].items()
            if kind == "toolResult" or start.get("type") == "server_tool_use":
                server_side.add(index)
            else:
                blocks[index] = {"toolUse": start | {"input": ""}}
        elif event == "contentBlockDelta" and index not in server_side:
            _add(blocks, index, payload["delta"])
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    return [blocks[index] for index in sorted(blocks)]


def _add(blocks, index, delta):
    if "text" in delta:
        blocks.setdefault(index, {"text": ""})["text"] += delta["text"]
    elif "toolUse" in delta:
        blocks[index]["toolUse"]["input"] += delta["toolUse"]["input"]
    elif "redactedContent" in delta["reasoningContent"]:
        blocks[index] = {"reasoningContent": delta["reasoningContent"]}
    else:
        told = blocks.setdefault(index, {"reasoningContent": {"reasoningText": {"text": ""}}})
        for field, piece in delta["reasoningContent"].items():
            told["reasoningContent"]["reasoningText"].setdefault(field, "")
            told["reasoningContent"]["reasoningText"][field] += piece


PNG = {"image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}}
TEXT = {"document": {"format": "txt", "name": "note", "source": {"bytes": "aGVsbG8="}}}


@pytest.mark.parametrize("media", [PNG, TEXT])
def test_images_and_documents_in_a_tools_result_are_carried_over(media):
    use = {"toolUseId": "t1", "name": "look", "input": {}}
    result = {"toolUseId": "t1", "content": [{"text": "See."}, media]}
    tool = {"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}
    turns = [
        {"role": "user", "content": [{"text": "Look."}]},
        {"role": "assistant", "content": [{"toolUse": use}]},
        {"role": "user", "content": [{"toolResult": result}, {"cachePoint": {"type": "default"}}]},
    ]
    body = {"messages": turns, "toolConfig": {"tools": [tool, {"cachePoint": {"type": "default"}}]}}
    _, got = mapped(openai_request(body))
    assert normal(got) == normal(body)


def test_two_documents_of_one_name_get_names_that_bedrock_takes():
    turn = {"role": "user", "content": [{"text": "Compare."}, TEXT, TEXT]}
    _, got = mapped(openai_request({"messages": [turn]}))
    names = [block["document"]["name"] for block in got["messages"][0]["content"][1:]]
    assert names == ["note", "note 2"]


def test_an_assistants_message_is_its_own_inverse():
    blocks = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "aGlkZGVu"}},
        {"text": "One."},
        {"text": "Two."},
        {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": ["x", 1, None]}}},
    ]
    assert given_back(message_of(blocks)) == blocks
