// How the npm openai package takes what goes wrong: `node errors.mjs RETRIES` asks once and prints what came, as JSON.

import OpenAI from "openai";

const client = new OpenAI({ maxRetries: Number(process.argv[2]) });
const CLASSES = ["BadRequestError", "AuthenticationError", "NotFoundError", "RateLimitError", "InternalServerError"];

try {
  const model = process.env.MODEL ?? (await client.models.list()).data[0].id;
  const answer = await client.chat.completions.create({ model, messages: [{ role: "user", content: "Hi." }] });
  console.log(JSON.stringify({ text: answer.choices[0].message.content }));
} catch (error) {
  const kind = CLASSES.find((name) => error instanceof OpenAI[name]);
  console.log(JSON.stringify({ kind, status: error.status, code: error.code, requestID: error.requestID }));
}
