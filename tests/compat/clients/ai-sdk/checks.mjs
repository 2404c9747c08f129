// Text, streams, images, objects and tools with @ai-sdk/openai (two turns with `store`), openai-compatible and anthropic.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, NoObjectGeneratedError, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const id = "tessera-tiny";
const baseURL = process.env.OPENAI_BASE_URL;
const apiKey = process.env.OPENAI_API_KEY;
const openai = createOpenAI({ baseURL, apiKey });
const models = {
  "openai (Responses)": openai(id),
  "openai (chat)": openai.chat(id),
  "openai-compatible": createOpenAICompatible({ name: "tessera", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true })(id),
  anthropic: createAnthropic({ baseURL, apiKey })(id),
};
const picture = readFileSync(process.env.PICTURE);
const question = {
  role: "user",
  content: [
    { type: "image", image: picture },
    { type: "text", text: "What is in this picture?" },
  ],
};
const options = { temperature: 0, maxOutputTokens: 400, maxRetries: 0 };

for (const [name, model] of Object.entries(models)) {
  test(`${name}: a whole answer is the streamed one`, async () => {
    const whole = await generateText({ model, messages: [question], ...options });
    assert.match(whole.text, /red circle/);
    assert.ok(whole.usage.inputTokens > 49);
    const stream = streamText({ model, messages: [question], ...options });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, whole.text);
    assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
  });

  test(`${name}: a second turn`, async () => {
    const first = await generateText({ model, messages: [question], ...options });
    const messages = [question, ...first.response.messages, { role: "user", content: "And what color is it?" }];
    const second = await generateText({ model, messages, ...options });
    assert.ok(second.usage.inputTokens > first.usage.inputTokens);
    for await (const part of streamText({ model, messages, ...options }).fullStream) {
      assert.notEqual(part.type, "error", String(part.error));
    }
  });

  test(`${name}: an object of a schema`, async () => {
    const schema = z.object({
      color: z.enum(["red", "green"]),
      sent: z.iso.date(),
      shape: z.discriminatedUnion("kind", [
        z.object({ kind: z.literal("circle"), radius: z.number().int().min(1).max(9) }),
        z.object({ kind: z.literal("square"), side: z.number().int().min(1).max(9) }),
      ]),
    });
    const { output } = await generateText({ model, messages: [question], output: Output.object({ schema }), ...options });
    schema.parse(output);
  });

  test(`${name}: an address in an object`, async (t) => {
    const output = Output.object({ schema: z.object({ address: z.email() }) });
    try {
      z.email().parse((await generateText({ model, messages: [question], output, ...options })).output.address);
    } catch (error) {
      if (!NoObjectGeneratedError.isInstance(error) || error.finishReason !== "length") throw error;
      t.skip("the model does not come to the end of an address");
    }
  });

  test(`${name}: a tool that shows an image, then an answer`, async () => {
    const look = tool({
      description: "Looks again.",
      inputSchema: z.object({ color: z.enum(["red", "green"]) }),
      execute: async ({ color }) => ({ color }),
      toModelOutput: () => ({
        type: "content",
        value: [
          { type: "text", text: "Here it is." },
          { type: "file", data: { type: "data", data: picture.toString("base64") }, mediaType: "image/png" },
        ],
      }),
    });
    const steps = [];
    const result = await generateText({
      model,
      messages: [question],
      tools: { look },
      toolChoice: "required",
      prepareStep: ({ stepNumber }) => (stepNumber ? { toolChoice: "none" } : {}),
      stopWhen: stepCountIs(2),
      onStepFinish: (step) => steps.push(step.finishReason),
      ...options,
    });
    assert.equal(steps[0], "tool-calls");
    assert.equal(result.steps[0].toolResults.length, 1);
    assert.equal(steps.length, 2);
  });

  test(`${name}: a wrong request is an APICallError with the server's words`, async () => {
    const messages = [{ role: "user", content: "word ".repeat(100_000) }];
    await assert.rejects(generateText({ model, messages, ...options }), (error) => {
      assert.ok(APICallError.isInstance(error), String(error));
      assert.equal(error.statusCode, 400);
      assert.match(error.message, /too long/);
      return true;
    });
  });
}
