// `codex exec` over Responses: a request with its own tools, and an answer.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const home = join(process.env.HOME, ".codex");
mkdirSync(home);
writeFileSync(
  join(home, "config.toml"),
  `model = "tessera-tiny"
model_provider = "tessera"
model_context_window = 32768
[features]
goals = false
[analytics]
enabled = false
[model_providers.tessera]
name = "Tessera"
base_url = "${process.env.OPENAI_BASE_URL}"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
`,
);

test("an answered request", () => {
  const words = ["exec", "--json", "--skip-git-repo-check", "--sandbox", "read-only", "Hello"];
  const done = spawnSync("codex", words, { cwd: process.env.HOME, encoding: "utf8", timeout: 240_000, input: "" });
  assert.equal(done.status, 0, `${done.stdout}\n${done.stderr}`);
  const events = done.stdout.trim().split("\n").map((line) => JSON.parse(line));
  const last = events.at(-1);
  assert.equal(last.type, "turn.completed", done.stdout);
  assert.ok(last.usage.input_tokens > 1000 && last.usage.output_tokens > 0, done.stdout);
});
