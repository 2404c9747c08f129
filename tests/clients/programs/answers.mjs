// What people do with the npm openai package, in one program: `node answers.mjs PICTURE CLIP` prints what came, as JSON.

import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import OpenAI from "openai";

const [picturePath, clipPath] = process.argv.slice(2);
const client = new OpenAI({ maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const picture = `data:image/png;base64,${(await readFile(picturePath)).toString("base64")}`;
const limits = { model, temperature: 0, max_tokens: 80 };
const parameters = {
  type: "object",
  properties: { color: { type: "string", enum: ["red", "green"] } },
  required: ["color"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "paint", description: "Paint it.", parameters, strict: true } }];
const painting = { ...limits, tools, tool_choice: "required", messages: [{ role: "user", content: "Paint it red." }] };

function about(part, question) {
  return [{ role: "user", content: [part, { type: "text", text: question }] }];
}

const messages = about({ type: "image_url", image_url: { url: picture } }, "What is in this picture?");
const whole = await client.chat.completions.create({ ...limits, messages });
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...limits, messages, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}

const file = await client.files.create({ file: createReadStream(clipPath), purpose: "vision" });
const clip = await client.chat.completions.create({
  ...limits,
  messages: about({ type: "file", file: { file_id: file.id } }, "What happens?"),
});
const deleted = await client.files.delete(file.id);

const called = (await client.chat.completions.create(painting)).choices[0];
const calledInStream = (await client.chat.completions.stream(painting).finalChatCompletion()).choices[0];
const result = { role: "tool", tool_call_id: called.message.tool_calls[0].id, content: "Painted." };
const after = await client.chat.completions.create({
  ...painting,
  tool_choice: "none",
  messages: [...painting.messages, called.message, result],
});

const parsed = await client.chat.completions.parse({
  ...limits,
  messages: [{ role: "user", content: "Which color?" }],
  response_format: { type: "json_schema", json_schema: { name: "paint", strict: true, schema: parameters } },
});

const input = [
  {
    role: "user",
    content: [
      { type: "input_image", image_url: picture, detail: "auto" },
      { type: "input_text", text: "What is in this picture?" },
    ],
  },
];
const asked = { model, temperature: 0, max_output_tokens: 80, store: false, input };
const response = await client.responses.create(asked);
let responseStreamed = "";
for await (const event of await client.responses.create({ ...asked, stream: true })) {
  if (event.type === "response.output_text.delta") responseStreamed += event.delta;
}

console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    streamed,
    clip: clip.choices[0].message.content,
    deleted: deleted.deleted,
    calls: [called, calledInStream].map(({ finish_reason, message }) => [
      finish_reason,
      message.tool_calls[0].function.name,
      JSON.parse(message.tool_calls[0].function.arguments),
    ]),
    after: after.choices[0].finish_reason,
    parsed: parsed.choices[0].message.parsed,
    response: response.output_text,
    responseStreamed,
  }),
);
