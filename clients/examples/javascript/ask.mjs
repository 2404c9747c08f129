// Ask about a picture or a clip, and print the answer as it comes:
//
//   npm ci && node ask.mjs "What is in this picture?" ../../../docs/circle.png
//
// The server is the one of OPENAI_BASE_URL, else http://127.0.0.1:8000/v1. Large files are uploaded once and named by id.

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { basename, extname } from "node:path";
import OpenAI from "openai";

const UPLOAD_ABOVE_BYTES = 4 * 1024 * 1024;
const TYPES = { ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".mp4": "video/mp4" };

const client = new OpenAI({
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "unused",
});

/** The content part of a file: a part `file` takes pictures and clips alike, by id or as a data: URL. */
async function part(path) {
  if ((await stat(path)).size > UPLOAD_ABOVE_BYTES) {
    const { id } = await client.files.create({ file: createReadStream(path), purpose: "vision" });
    return { type: "file", file: { file_id: id } };
  }
  const type = TYPES[extname(path).toLowerCase()] ?? "application/octet-stream";
  const data = (await readFile(path)).toString("base64");
  return { type: "file", file: { filename: basename(path), file_data: `data:${type};base64,${data}` } };
}

const [question, ...paths] = process.argv.slice(2);
if (!question) {
  console.error("usage: node ask.mjs QUESTION [FILE ...]");
  process.exit(2);
}
const model = (await client.models.list()).data[0].id;
const stream = await client.chat.completions.create({
  model,
  stream: true,
  temperature: 0,
  stream_options: { include_usage: true },
  messages: [{ role: "user", content: [...(await Promise.all(paths.map(part))), { type: "text", text: question }] }],
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
  if (chunk.usage) console.error(`\n(${chunk.usage.prompt_tokens} + ${chunk.usage.completion_tokens} tokens)`);
}
