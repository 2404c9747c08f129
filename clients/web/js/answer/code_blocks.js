// @ts-check
/** Code in answers: its language, a button that copies it, and colors for comments, texts, numbers and words of the language. */

import { el } from "../page/dom.js";
import { t } from "../page/texts.js";
import { copy } from "./copy.js";

const WORDS = new Set(
  ("abstract and as assert async await bool boolean break case catch char class const continue def default del delete do double elif else enum " +
    "except export extends false final finally float fn for foreach from function global go if impl implements import in include int interface is " +
    "lambda let long loop match mod module mut new nil none not null or package pass private protected pub public raise return select self static " +
    "string struct super switch then this throw trait true try type typeof union unsafe use using var void where while with yield").split(" "),
);
const HASH = /^(?:bash|sh|shell|zsh|python|py|ruby|rb|yaml|yml|toml|make|makefile|r|perl|dockerfile|)$/;
const PLAIN = /^(?:text|txt|plain|plaintext|markdown|md|diff)$/;
const MAX_CHARS = 50_000;

/** A block of code with what belongs around it. */
export function dressed(/** @type {any} */ code) {
  const language = code.className.replace(/^language-/, "");
  const text = code.textContent;
  if (!PLAIN.test(language) && text.length <= MAX_CHARS) code.replaceChildren(...colored(text, language.toLowerCase()));
  return el("div", { class: "code-block" },
    el("div", { class: "code-head" }, el("span", {}, language), el("button", { type: "button", class: "link", onclick: (/** @type {any} */ event) => copy(event.target, text) }, t("copy"))),
    el("pre", { tabindex: 0 }, code));
}

function* colored(/** @type {string} */ text, /** @type {string} */ language) {
  const comment = HASH.test(language) ? "#[^\\n]*" : language === "sql" || language === "lua" ? "--[^\\n]*" : "\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)|<!--[\\s\\S]*?(?:-->|$)";
  const rule = new RegExp(`(?<comment>${comment})|(?<text>"(?:[^"\\\\\\n]|\\\\.)*"|'(?:[^'\\\\\\n]|\\\\.)*'|\`(?:[^\`\\\\]|\\\\.)*\`)|(?<number>\\b\\d[\\w.]*)|(?<word>[A-Za-z_]\\w*)`, "g");
  let done = 0;
  for (const match of text.matchAll(rule)) {
    const { comment: remark, text: quoted, number } = match.groups ?? {};
    const kind = remark ? "comment" : quoted ? "text" : number ? "number" : WORDS.has(match[0].toLowerCase()) ? "word" : null;
    if (!kind) continue;
    yield text.slice(done, match.index);
    yield el("span", { "data-code": kind }, match[0]);
    done = match.index + match[0].length;
  }
  yield text.slice(done);
}
