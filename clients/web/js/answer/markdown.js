// @ts-check
/** Answers are Markdown, and nobody knows what a model writes: marked makes markup of it, DOMPurify lets the harmless through. */

import DOMPurify from "../../vendor/dompurify/purify.es.mjs";
import { marked } from "../../vendor/marked/marked.esm.js";
import { dressed } from "./code_blocks.js";
import { drawFormulas, FORMULAS } from "./formulas.js";

const HARMLESS = {
  ALLOWED_TAGS:
    "a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i li ol p pre strong sub sup table tbody td th thead tr ul".split(" "),
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

marked.use(FORMULAS);
DOMPurify.addHook("afterSanitizeAttributes", (/** @type {any} */ node) => {
  if (node.hasAttribute?.("href")) {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  // The one class that an answer may bring tells the language of its code.
  if (!(node.tagName === "CODE" && /^language-[\w+#.-]+$/.test(node.className ?? ""))) node.removeAttribute?.("class");
});

/** A text as a fragment of the page: no pictures, no scripts, no styles, nothing that is fetched. */
export function render(/** @type {string} */ text) {
  const fragment = /** @type {any} */ (DOMPurify).sanitize(marked.parse(text, { gfm: true, breaks: true }), HARMLESS);
  drawFormulas(fragment);
  for (const code of [...fragment.querySelectorAll("pre > code")]) code.parentElement.replaceWith(dressed(code));
  return fragment;
}
