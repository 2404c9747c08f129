// `claude -p`: an answered request, as text, as JSON and as a stream of events.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

const model = { ANTHROPIC_MODEL: "tessera-tiny", ANTHROPIC_SMALL_FAST_MODEL: "tessera-tiny" };

/** What Claude Code prints for a prompt; tools beyond one are left out, so that its own prompt fits the model's context. */
function ask(...options) {
  const words = ["-p", "Hello", "--tools", "Read", "--system-prompt", "You see pictures.", ...options];
  const env = { ...process.env, ...model };
  const done = spawnSync("claude", words, { env, encoding: "utf8", timeout: 240_000, input: "" });
  assert.equal(done.status, 0, `${done.stdout}\n${done.stderr}`);
  return done.stdout;
}

test("text", () => assert.ok(ask().trim().length > 0));

test("JSON, with the usage", () => {
  const told = JSON.parse(ask("--output-format", "json"));
  assert.equal(told.subtype, "success");
  assert.equal(told.is_error, false);
  assert.ok(told.usage.output_tokens > 0);
});

test("a stream of events", () => {
  const lines = ask("--output-format", "stream-json", "--verbose").trim().split("\n");
  const kinds = lines.map((line) => JSON.parse(line).type);
  assert.ok(kinds.includes("assistant"));
  assert.equal(kinds.at(-1), "result");
});
