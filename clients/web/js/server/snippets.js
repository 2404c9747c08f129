// @ts-check
/** A chat request as a program: curl, Python and JavaScript that send the same files and ask the same. Pure. */

const STANDARD = new Set([
  "model", "messages", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "max_completion_tokens", "stop",
]);

/** A piece of the program inside of a value. */
class Code {
  constructor(/** @type {string} */ text) {
    this.text = text;
  }
}

/** @typedef {{ id: string, name: string, variable: string, inline: boolean }} UsedFile */

/**
 * @param {any} body of the request; in it, files are named by their ids.
 * @param {{ files: { id: string, name: string }[], inline: { id: string, name: string }[], base: string, needsKey: boolean }} facts
 *   files: that are uploaded; inline: that stand in the request as `data:` URLs, which are their ids here; base: URL of the API;
 *   needsKey: whether a key is to be sent, from the variable TESSERA_API_KEY.
 * @returns a program by the name of its language.
 */
export function snippets(body, { files, inline, base, needsKey }) {
  const all = [...files.map((file) => ({ ...file, inline: false })), ...inline.map((file) => ({ ...file, inline: true }))];
  const text = JSON.stringify(body);
  const once = all.filter(({ id }, index) => text.includes(`"${id}"`) && all.findIndex((other) => other.id === id) === index);
  const used = once.map((file, index) => ({ ...file, variable: `file_${index + 1}` }));
  const streamed = { ...body, stream: true };
  return {
    curl: curl(body, used, base, needsKey),
    Python: python(streamed, used, base, needsKey),
    JavaScript: javascript(streamed, used, base, needsKey),
  };
}

function curl(/** @type {any} */ request, /** @type {UsedFile[]} */ files, /** @type {string} */ base, /** @type {boolean} */ needsKey) {
  const key = needsKey ? ` \\\n  -H "Authorization: Bearer $TESSERA_API_KEY"` : "";
  const sources = files.map(({ name, variable, inline }) =>
    inline
      ? `${variable}="data:application/octet-stream;base64,$(base64 < ${quoted(name)} | tr -d '\\n')"\n`
      : `${variable}=$(curl -sS ${base}/files${key} \\\n  -F purpose=vision -F ${quoted(`file=@"${name.replace(/["\\]/g, "\\$&")}"`)} |\n` +
        `  sed -n 's/.*"id": *"\\(file-[^"]*\\)".*/\\1/p')\n`,
  );
  const short = named(request, files, ({ variable }) => `<${variable}>`); // an id may be megabytes of base64
  const json = files.reduce((text, { variable }) => text.replaceAll(`"<${variable}>"`, `"'"$${variable}"'"`), quoted(literal(short, "", JSON_STYLE)));
  return `${sources.join("")}printf %s ${json} |\n  curl -sS ${base}/chat/completions${key} \\\n  -H 'Content-Type: application/json' -d @-\n`;
}

function python(/** @type {any} */ request, /** @type {UsedFile[]} */ files, /** @type {string} */ base, /** @type {boolean} */ needsKey) {
  const entries = Object.entries(named(request, files, idOf));
  const own = Object.fromEntries(entries.filter(([name]) => !STANDARD.has(name) && name !== "stream"));
  /** @type {[string, any][]} */
  const given = [...entries.filter(([name]) => STANDARD.has(name)), ["stream", true]];
  if (Object.keys(own).length) given.push(["extra_body", own]);
  const imports = [...(files.some(({ inline }) => inline) ? ["import base64"] : []), ...(needsKey ? ["import os"] : [])];
  return [
    ...imports,
    ...(imports.length ? [""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(base)}, api_key=${needsKey ? 'os.environ["TESSERA_API_KEY"]' : '"unused"'})`,
    ...files.map(({ name, variable, inline }) =>
      inline
        ? `${variable} = "data:application/octet-stream;base64," + base64.b64encode(open(${JSON.stringify(name)}, "rb").read()).decode()`
        : `${variable} = client.files.create(file=open(${JSON.stringify(name)}, "rb"), purpose="vision")`),
    "chunks = client.chat.completions.create(",
    ...given.map(([name, value]) => `    ${name}=${literal(value, "    ", PYTHON)},`),
    ")",
    "for chunk in chunks:",
    '    print(chunk.choices[0].delta.content or "", end="", flush=True)',
    "",
  ].join("\n");
}

function javascript(/** @type {any} */ request, /** @type {UsedFile[]} */ files, /** @type {string} */ base, /** @type {boolean} */ needsKey) {
  const key = needsKey ? "process.env.TESSERA_API_KEY" : '"unused"';
  const body = named(request, files, idOf);
  return [
    ...(files.length ? ['import fs from "node:fs";'] : []),
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: ${JSON.stringify(base)}, apiKey: ${key} });`,
    ...files.map(({ name, variable, inline }) =>
      inline
        ? `const ${variable} = "data:application/octet-stream;base64," + fs.readFileSync(${JSON.stringify(name)}, "base64");`
        : `const ${variable} = await client.files.create({ file: fs.createReadStream(${JSON.stringify(name)}), purpose: "vision" });`),
    `const chunks = await client.chat.completions.create(${literal(body, "", JAVASCRIPT)});`,
    'for await (const chunk of chunks) process.stdout.write(chunk.choices[0].delta.content ?? "");',
    "",
  ].join("\n");
}

/** How Python and JavaScript name a file. */
const idOf = (/** @type {UsedFile} */ { variable, inline }) => new Code(inline ? variable : `${variable}.id`);

/**
 * `value` with the ids of files replaced by what the program calls them.
 * @param {any} value
 * @param {UsedFile[]} files
 * @param {(file: UsedFile) => any} call
 * @returns {any}
 */
function named(value, files, call) {
  if (Array.isArray(value)) return value.map((each) => named(each, files, call));
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, named(each, files, call)]));
  const file = files.find(({ id }) => id === value);
  return file ? call(file) : value;
}

/** How literals of the languages differ: some words, the names of fields, and whether a comma may stand at the end. */
const JSON_STYLE = { words: {}, name: JSON.stringify, last: "" };
const JAVASCRIPT = { words: {}, name: (/** @type {string} */ text) => text, last: "," };
const PYTHON = { words: { true: "True", false: "False", null: "None" }, name: JSON.stringify, last: "," };

/**
 * A value as a literal; short ones stay on one line.
 * @returns {string}
 */
function literal(/** @type {any} */ value, /** @type {string} */ indent, /** @type {any} */ style) {
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
const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", `'\\''`)}'`;
