// Find something in a picture: a typed example that maps the answer's boxes to pixels and has an answer follow a schema.
//
//   npm ci && npm run locate -- "Locate the red circle." ../../../docs/circle.png
//
// The fields the openai package does not know (`skip_special_tokens`, `include`, and `tessera` in the answer) are typed here.

import { readFile } from "node:fs/promises";
import OpenAI from "openai";

interface Medium {
  source_size: { width: number; height: number };
  tokens: number;
}

interface Answer extends OpenAI.ChatCompletion {
  tessera?: { media: Medium[] };
}

interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

const EXTENT = 1000; // coordinates in answers run from 0 to this, whatever the picture's size

/** The boxes of a grounding answer, in the picture's pixels. */
function boxes(answer: string, width: number, height: number): Box[] {
  const found = answer.matchAll(/\((\d{1,4}),(\d{1,4})\),\((\d{1,4}),(\d{1,4})\)/g);
  return [...found].map((match) => {
    const [x1, y1, x2, y2] = match.slice(1).map((number) => Math.min(Number(number), EXTENT) / EXTENT) as [number, number, number, number];
    return { left: x1 * width, top: y1 * height, right: x2 * width, bottom: y2 * height };
  });
}

const client = new OpenAI({
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "unused",
});
const [question, path] = process.argv.slice(2);
if (!question || !path) {
  console.error("usage: npm run locate -- QUESTION PICTURE");
  process.exit(2);
}
const url = `data:image/png;base64,${(await readFile(path)).toString("base64")}`;
const messages: OpenAI.ChatCompletionMessageParam[] = [
  { role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: question }] },
];
const model = (await client.models.list()).data[0]!.id;

const extras = { skip_special_tokens: false, include: ["media"] };
const located = (await client.chat.completions.create({ model, messages, temperature: 0, ...extras })) as Answer;
const text = located.choices[0]!.message.content ?? "";
const size = located.tessera!.media[0]!.source_size;
console.log(JSON.stringify({ text, size, boxes: boxes(text, size.width, size.height) }));
