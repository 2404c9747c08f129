// @ts-check
/**
 * Formulas in answers: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`. While Markdown is read they pass as code that begins with a
 * mark of their own; afterwards KaTeX, loaded when the first one comes, draws them as MathML, which browsers show by themselves.
 */

const INLINE = "\uE010";
const BLOCK = "\uE011";
const INLINE_RULE = /^(?:\$\$([^$]+?)\$\$|\$(?!\s)((?:[^$\\\n]|\\.)+?)(?<!\s)\$(?!\d)|\\\(([\s\S]+?)\\\)|\\\[([\s\S]+?)\\\])/;
const BLOCK_RULE = /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/;

/** For marked: what is a formula, and that a backslash before a bracket stays where it is none. */
export const FORMULAS = {
  extensions: [
    {
      name: "formulaBlock",
      level: "block",
      start: (/** @type {string} */ text) => text.match(/\$\$|\\\[/)?.index,
      tokenizer: (/** @type {string} */ text) => token("formulaBlock", BLOCK_RULE.exec(text)),
      renderer: (/** @type {any} */ { tex }) => `<p><code>${BLOCK}${escaped(tex)}</code></p>`,
    },
    {
      name: "formula",
      level: "inline",
      start: (/** @type {string} */ text) => text.match(/\$|\\[([]/)?.index,
      tokenizer: (/** @type {string} */ text) => token("formula", INLINE_RULE.exec(text)),
      renderer: (/** @type {any} */ { raw, tex }) => `<code>${raw.startsWith("$$") || raw.startsWith("\\[") ? BLOCK : INLINE}${escaped(tex)}</code>`,
    },
  ],
  tokenizer: {
    escape: (/** @type {string} */ text) => (/^\\[()[\]]/.test(text) ? { type: "text", raw: text.slice(0, 2), text: text.slice(0, 2) } : false),
  },
};

/** @type {Promise<any> | null} */
let loading = null;
/** @type {any} */
let katex = null;

/** Draw the formulas of a fragment: at once where KaTeX is there, and as soon as it is. */
export function drawFormulas(/** @type {DocumentFragment} */ fragment) {
  for (const code of fragment.querySelectorAll("code")) {
    const mark = code.textContent?.[0];
    if (mark !== INLINE && mark !== BLOCK) continue;
    const tex = code.textContent?.slice(1) ?? "";
    code.textContent = tex;
    if (katex) draw(code, tex, mark === BLOCK);
    else load().then(() => code.isConnected && draw(code, tex, mark === BLOCK));
  }
}

function load() {
  loading ??= import("../../vendor/katex/katex.mjs").then((module) => (katex = module.default));
  return loading;
}

function draw(/** @type {HTMLElement} */ code, /** @type {string} */ tex, /** @type {boolean} */ displayMode) {
  const place = document.createElement("span");
  place.className = displayMode ? "formula block" : "formula";
  try {
    katex.render(tex, place, { output: "mathml", displayMode, throwOnError: true, trust: false, maxExpand: 200, strict: "ignore" });
    code.replaceWith(place);
  } catch {
    // What is no formula stays as it was written.
  }
}

function token(/** @type {string} */ type, /** @type {RegExpExecArray | null} */ match) {
  return match ? { type, raw: match[0], tex: match.slice(1).find((group) => group !== undefined)?.trim() } : undefined;
}

const escaped = (/** @type {string} */ text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
