"""Every kind of chat request that an OpenAI client makes."""

import base64
from typing import Any

PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 32).decode()
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PIXEL_PART = {"type": "image_url", "image_url": {"url": PIXEL}}
PDF = {"filename": "a_b:c.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"}
THE_TOOL = {"type": "function", "function": {"name": "weather"}}
PERSON = {
    "type": "json_schema",
    "json_schema": {"name": "person", "schema": {"type": "object", "properties": {"name": {"type": "string"}}}},
}
MARK = {"type": "ephemeral"}
REASONING = [
    {"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"},
    {"type": "reasoning.encrypted", "data": "aGlkZGVu"},
]
CLOSED = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "strict": True,
        "schema": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}
USER = {"role": "user", "content": "What is the weather in Bern?"}

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"messages": [USER]},
    "system and developer": {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "In English."}, USER]
    },
    "sampling": {"messages": [USER], "temperature": 0.2, "top_p": 0.9, "stop": ["END"], "max_tokens": 10},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "See:"}, PIXEL_PART]}]},
    "document": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Read."},
                    {"type": "file", "file": PDF},
                ],
            }
        ]
    },
    "tools": {"messages": [USER], "tools": [WEATHER], "tool_choice": "required"},
    "one tool": {"messages": [USER], "tools": [WEATHER], "tool_choice": THE_TOOL},
    "a tool without parameters": {"messages": [USER], "tools": [{"type": "function", "function": {"name": "now"}}]},
    "results": {"messages": [USER, CALLED, RESULT, {"role": "user", "content": "Thanks."}], "tools": [WEATHER]},
    "a history of calls without tools": {"messages": [USER, CALLED, RESULT]},
    "an empty result": {"messages": [USER, CALLED, RESULT | {"content": ""}]},
    "json": {"messages": [USER], "response_format": PERSON},
    "json and tools": {"messages": [USER], "response_format": PERSON, "tools": [WEATHER]},
    "any json": {"messages": [USER], "response_format": {"type": "json_object"}},
    "reasoning given back": {
        "messages": [
            USER,
            {"role": "assistant", "content": "Fine.", "reasoning_content": "Hm.", "reasoning_details": REASONING},
            USER,
        ]
    },
    "marks for the cache": {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": MARK}]},
            {"role": "user", "content": [{"type": "text", "text": "See:", "cache_control": MARK}, PIXEL_PART]},
            CALLED,
            RESULT | {"cache_control": MARK},
        ],
        "tools": [WEATHER | {"cache_control": MARK}],
    },
    "media in a result": {
        "messages": [USER, CALLED, RESULT | {"content": [{"type": "text", "text": "See:"}, PIXEL_PART]}]
    },
    "a failed call": {"messages": [USER, CALLED, RESULT | {"is_error": True}]},
    "effort": {"messages": [USER], "reasoning_effort": "high"},
    "strict json": {"messages": [USER], "response_format": CLOSED},
    "one call at a time": {"messages": [USER], "tools": [WEATHER], "parallel_tool_calls": False},
    "neighbours of one role": {"messages": [USER, USER, {"role": "assistant", "content": "Hm."}, USER]},
}
