// The Messages API from JavaScript: whole, streamed, images, tools, counting, errors.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";

const model = "tessera-tiny";
const data = readFileSync(process.env.PICTURE).toString("base64");
const image = { type: "image", source: { type: "base64", media_type: "image/png", data } };
const messages = [{ role: "user", content: [image, { type: "text", text: "What is in this picture?" }] }];
const color = { type: "string", enum: ["red", "green"] };
const paint = { name: "paint", input_schema: { type: "object", properties: { color }, required: ["color"] } };
const client = new Anthropic();

test("a whole answer is the streamed one", async () => {
  const whole = await client.messages.create({ model, max_tokens: 50, temperature: 0, messages });
  assert.match(whole.content[0].text, /red circle/);
  const stream = client.messages.stream({ model, max_tokens: 50, temperature: 0, messages });
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.deepEqual(final.usage.output_tokens, whole.usage.output_tokens);
});

test("a tool is called, and its result goes back", async () => {
  const tool_choice = { type: "tool", name: "paint" };
  const called = await client.messages.create({ model, max_tokens: 100, messages, tools: [paint], tool_choice });
  const call = called.content.at(-1);
  assert.equal(called.stop_reason, "tool_use");
  assert.ok(["red", "green"].includes(call.input.color));
  const result = { type: "tool_result", tool_use_id: call.id, content: [image, { type: "text", text: "Done." }] };
  const history = [...messages, { role: "assistant", content: called.content }, { role: "user", content: [result] }];
  const answer = await client.messages.create({ model, max_tokens: 20, messages: history, tools: [paint] });
  assert.equal(answer.role, "assistant");
});

test("a tool runner calls, runs and asks again", async () => {
  const tool = { ...paint, type: "custom", run: async ({ color }) => `painted ${color}`, parse: (input) => input };
  const tools = [tool];
  const runner = client.beta.messages.toolRunner({ model, max_tokens: 60, messages, tools, max_iterations: 2 });
  const final = await runner;
  assert.equal(final.role, "assistant");
});

test("tokens are counted as they are charged", async () => {
  const counted = await client.messages.countTokens({ model, messages });
  const answer = await client.messages.create({ model, max_tokens: 1, messages });
  assert.equal(counted.input_tokens, answer.usage.input_tokens);
});

test("errors have their classes", async () => {
  const wrong = new Anthropic({ apiKey: "wrong" });
  await assert.rejects(wrong.messages.create({ model, max_tokens: 1, messages }), Anthropic.AuthenticationError);
  await assert.rejects(client.messages.create({ model: "none", max_tokens: 1, messages }), Anthropic.NotFoundError);
  await assert.rejects(client.messages.create({ model, max_tokens: -1, messages }), Anthropic.BadRequestError);
});
