// What the official OpenAI client for Node.js does with Loam as its base URL. Run by test_clients.py, which says in the
// environment where the gateway is and with which keys.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const { LOAM_URL: baseURL, LOAM_KEY: apiKey, LOAM_NARROW_KEY, LOAM_POOR_KEY, LOAM_BUSY_KEY, LOAM_SLOW } = process.env;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const say = (content) => ({ model: "haiku", messages: [{ role: "user", content }] });
const withKey = (key, more = {}) => new OpenAI({ baseURL, apiKey: key, maxRetries: 0, ...more });

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};

test("a completion has an answer, its usage and its cost", async () => {
  const { data, response } = await client.chat.completions.create(say("Say hello.")).withResponse();
  assert.ok(data.choices[0].message.content);
  assert.equal(data.choices[0].finish_reason, "stop");
  assert.ok(data.usage.total_tokens > 0);
  assert.ok(Number(response.headers.get("x-loam-cost-usd")) >= 0);
});

test("a stream says the same as its helper gathers, and its usage comes last", async () => {
  const request = { ...say("Say hello to the stream."), stream: true, stream_options: { include_usage: true } };
  let text = "";
  let usage = null;
  for await (const chunk of await client.chat.completions.create(request)) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.ok(usage.completion_tokens > 0);
  const gathered = await client.chat.completions.stream(say("Say hello to the stream.")).finalChatCompletion();
  assert.equal(gathered.choices[0].message.content, text);
});

test("a tool is called, takes its result, and its arguments stream", async () => {
  const question = { ...say("What is the weather in Lisbon?"), tools: [weather], tool_choice: "required" };
  const asked = await client.chat.completions.create(question);
  const [call] = asked.choices[0].message.tool_calls;
  assert.equal(asked.choices[0].finish_reason, "tool_calls");
  assert.equal(typeof JSON.parse(call.function.arguments).city, "string");
  const answered = await client.chat.completions.create({
    model: "haiku",
    tools: [weather],
    messages: [
      ...question.messages,
      asked.choices[0].message,
      { role: "tool", tool_call_id: call.id, content: "18 degrees and sunny" },
    ],
  });
  assert.ok(answered.choices[0].message.content);
  const streamed = await client.chat.completions.stream(question).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.tool_calls[0].function.name, "get_weather");
});

test("an answer is parsed by a zod schema", async () => {
  const City = z.object({ city: z.string(), inhabitants: z.number() });
  const parsed = await client.chat.completions.parse({
    ...say("Lisbon has 550000 inhabitants."),
    response_format: zodResponseFormat(City, "city"),
  });
  assert.equal(typeof parsed.choices[0].message.parsed.city, "string");
  assert.equal(typeof parsed.choices[0].message.parsed.inhabitants, "number");
});

test("embeddings are the same as floats and as base64, which is the client's default", async () => {
  const ask = { model: "embedder", input: ["one", "two"] };
  const [packed, plain] = [
    await client.embeddings.create(ask),
    await client.embeddings.create({ ...ask, encoding_format: "float" }),
  ];
  assert.equal(plain.data.length, 2);
  packed.data.forEach((vector, place) =>
    vector.embedding.forEach((value, at) => assert.ok(Math.abs(value - plain.data[place].embedding[at]) < 1e-6)),
  );
});

test("models are listed", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names.sort(), ["embedder", "haiku"]);
});

test("errors are raised as the client's own classes", async () => {
  const hello = say("hello");
  await assert.rejects(withKey("loam_wrong").chat.completions.create(hello), OpenAI.AuthenticationError);
  await assert.rejects(withKey(LOAM_NARROW_KEY).chat.completions.create(hello), OpenAI.PermissionDeniedError);
  await assert.rejects(client.chat.completions.create({ ...hello, model: "nothing" }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ ...hello, messages: [] }), OpenAI.BadRequestError);
  await assert.rejects(withKey(LOAM_POOR_KEY).chat.completions.create(hello), (error) => {
    assert.ok(error instanceof OpenAI.APIError);
    assert.deepEqual([error.status, error.code, error.type], [402, "budget_exceeded", "budget_error"]);
    assert.ok(error.requestID);
    return true;
  });
});

test("a rate limit is an error of its own class, and Retry-After is waited for", async () => {
  const slow = withKey(LOAM_BUSY_KEY).chat.completions.create(say(LOAM_SLOW));
  await new Promise((resolve) => setTimeout(resolve, 300));
  await assert.rejects(withKey(LOAM_BUSY_KEY).chat.completions.create(say("hello")), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.equal(error.headers.get("retry-after"), "1");
    return true;
  });
  const patient = await withKey(LOAM_BUSY_KEY, { maxRetries: 3 }).chat.completions.create(say("hello"));
  assert.ok(patient.choices[0].message.content);
  await slow;
});

test("a stream can be aborted", async () => {
  const stream = await client.chat.completions.create({ ...say(`${LOAM_SLOW} and abort`), stream: true });
  for await (const _ of stream) {
    stream.controller.abort();
    break;
  }
});
