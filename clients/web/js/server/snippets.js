/** A chat request as a program: curl, Python and JavaScript that upload the same files and ask the same. Pure. */

const STANDARD = new Set([
  "model", "messages", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "max_completion_tokens", "stop",
]);

/** A piece of the program inside of a value. */
class Code {
  constructor(text) {
    this.text = text;
  }
}

/**
 * @param body of the request; files in it are named by their ids.
 * @param names file name of each id.
 * @param base URL of the API.
 * @param needsKey whether a key is to be sent, from the variable TESSERA_API_KEY.
 * @returns a program by the name of its language.
 */
export function snippets(body, { names, base, needsKey }) {
  const used = Object.keys(names).filter((id) => JSON.stringify(body).includes(`"${id}"`));
  const files = used.map((id, index) => ({ id, name: names[id], variable: `file_${index + 1}` }));
  const request = { ...body, stream: true };
  return {
    curl: curl(request, files, base, needsKey),
    Python: python(request, files, base, needsKey),
    JavaScript: javascript(request, files, base, needsKey),
  };
}

function curl(request, files, base, needsKey) {
  const key = needsKey ? ` \\\n  -H "Authorization: Bearer $TESSERA_API_KEY"` : "";
  const uploads = files.map(
    ({ name, variable }) =>
      `${variable}=$(curl -sS ${base}/files${key} \\\n  -F purpose=vision -F ${quoted(`file=@"${name.replace(/["\\]/g, "\\$&")}"`)} |\n` +
      `  grep -o 'file-[[:alnum:]_-]*' | head -n 1)\n`,
  );
  const json = files.reduce(
    (text, { id, variable }) => text.replaceAll(`"${id}"`, `"'$${variable}'"`),
    quoted(literal(request, "", JSON_STYLE)),
  );
  return `${uploads.join("")}curl -sSN ${base}/chat/completions${key} \\\n  -H 'Content-Type: application/json' -d ${json}\n`;
}

function python(request, files, base, needsKey) {
  const entries = Object.entries(named(request, files, (variable) => `${variable}.id`));
  const own = Object.fromEntries(entries.filter(([name]) => !STANDARD.has(name) && name !== "stream"));
  const given = [...entries.filter(([name]) => STANDARD.has(name)), ["stream", true]];
  if (Object.keys(own).length) given.push(["extra_body", own]);
  return [
    ...(needsKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(base)}, api_key=${needsKey ? 'os.environ["TESSERA_API_KEY"]' : '"unused"'})`,
    ...files.map(({ name, variable }) => `${variable} = client.files.create(file=open(${JSON.stringify(name)}, "rb"), purpose="vision")`),
    "chunks = client.chat.completions.create(",
    ...given.map(([name, value]) => `    ${name}=${literal(value, "    ", PYTHON)},`),
    ")",
    "for chunk in chunks:",
    '    print(chunk.choices[0].delta.content or "", end="", flush=True)',
    "",
  ].join("\n");
}

function javascript(request, files, base, needsKey) {
  const key = needsKey ? "process.env.TESSERA_API_KEY" : '"unused"';
  const body = named(request, files, (variable) => `${variable}.id`);
  return [
    ...(files.length ? ['import fs from "node:fs";'] : []),
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: ${JSON.stringify(base)}, apiKey: ${key} });`,
    ...files.map(
      ({ name, variable }) =>
        `const ${variable} = await client.files.create({ file: fs.createReadStream(${JSON.stringify(name)}), purpose: "vision" });`,
    ),
    `const chunks = await client.chat.completions.create(${literal(body, "", JAVASCRIPT)});`,
    'for await (const chunk of chunks) process.stdout.write(chunk.choices[0].delta.content ?? "");',
    "",
  ].join("\n");
}

/** `value` with the ids of files replaced by what the program calls them. */
function named(value, files, call) {
  if (Array.isArray(value)) return value.map((each) => named(each, files, call));
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, named(each, files, call)]));
  const file = files.find(({ id }) => id === value);
  return file ? new Code(call(file.variable)) : value;
}

/** How literals of the languages differ: some words, the names of fields, and whether a comma may stand at the end. */
const JSON_STYLE = { words: {}, name: JSON.stringify, last: "" };
const JAVASCRIPT = { words: {}, name: (text) => text, last: "," };
const PYTHON = { words: { true: "True", false: "False", null: "None" }, name: JSON.stringify, last: "," };

/** A value as a literal; short ones stay on one line. */
function literal(value, indent, style) {
  if (value instanceof Code) return value.text;
  if (value === null || typeof value !== "object") {
    const text = JSON.stringify(value);
    return style.words[text] ?? text;
  }
  const inner = `${indent}  `;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Array.isArray(value)
    ? value.map((each) => literal(each, inner, style))
    : Object.entries(value).map(([name, each]) => `${style.name(name)}: ${literal(each, inner, style)}`);
  const short = items.join(", ");
  if (short.length <= 60 && !short.includes("\n")) return `${open}${short}${close}`;
  return `${open}\n${inner}${items.join(`,\n${inner}`)}${style.last}\n${indent}${close}`;
}

/** For a shell. */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
