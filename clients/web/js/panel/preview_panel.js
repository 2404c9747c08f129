// @ts-check
/** The panel "What the model sees": the size of the prompt, each picture or video, and the prompt piece by piece. */

import { byId, el } from "../page/dom.js";
import { count, tokens as tokensText } from "../page/format.js";
import { t } from "../page/texts.js";
import { seenView } from "../media/preview_panel_media.js";

/** @type {[string, import("../page/texts.js").TextKey][]} */
const KINDS = [
  ["image", "kindImage"],
  ["video", "kindVideo"],
  ["text", "kindText"],
  ["control", "kindControl"],
];
/** With more attachments than this, each is folded. */
const MAX_OPEN = 2;
const views = new WeakMap();

/** Show what the server says of a prompt (the answer of a preview), and the attachments in focus. */
export function showPreview(/** @type {any} */ told, /** @type {any[]} */ attachments, { draft = true } = {}) {
  const known = attachments.filter((each) => each.report);
  byId("sees-what").textContent = t(draft ? "seesDraft" : "seesConversation");
  byId("sees").replaceChildren(
    budget(told),
    ...known.map((each) => (known.length > MAX_OPEN ? folded(each) : view(each))),
    el("details", { class: "pieces", open: byId("sees").querySelector(".pieces")?.open ?? false },
      el("summary", {}, t("pieceByPiece")), el("ol", {}, ...told.parts.map(piece))),
  );
}

/** Say why nothing can be shown. */
export function showProblem(/** @type {string} */ text) {
  byId("sees").replaceChildren(el("p", { class: "hint" }, text));
}

/** Go back to the beginning. */
const beginning = [...byId("sees").childNodes];
export function showNothing() {
  byId("sees-what").textContent = "";
  byId("sees").replaceChildren(...beginning);
}

/** Views are kept while what they show is the same, since drawing a video takes a while. */
function view(/** @type {any} */ attachment) {
  const known = views.get(attachment);
  if (known?.report === attachment.report && known.url === attachment.url) return known.element;
  const element = seenView(attachment);
  views.set(attachment, { report: attachment.report, url: attachment.url, element });
  return element;
}

function folded(/** @type {any} */ attachment) {
  const known = views.get(attachment);
  const fold = el("details", { class: "fold" }, el("summary", {}, el("b", {}, attachment.name), `, ${tokensText(attachment.report.tokens)}`));
  const open = () => fold.open && fold.childElementCount === 1 && fold.append(view(attachment));
  fold.addEventListener("toggle", open);
  if (known?.element.closest("details")?.open) {
    fold.open = true;
    open();
  }
  return fold;
}

function budget(/** @type {any} */ { prompt_tokens, max_model_len, prompt_tokens_details: tokens }) {
  const over = prompt_tokens - max_model_len;
  const share = (/** @type {number} */ number) => `${(100 * number) / Math.max(max_model_len, prompt_tokens)}%`;
  const parts = KINDS.filter(([kind]) => tokens[kind]);
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  for (const [kind] of parts) {
    const segment = el("span", { "data-kind": kind });
    segment.style.inlineSize = share(tokens[kind]); // not an attribute: the page's policy refuses those
    bar.append(segment);
  }
  return el("div", { class: "budget", "data-over": over >= 0 },
    el("p", {}, el("b", { id: "prompt-tokens" }, count(prompt_tokens)), t("ofTokens", { n: count(max_model_len) })),
    bar,
    el("ul", {}, ...parts.map(([kind, name]) => el("li", { "data-kind": kind }, el("span", {}, t(name)), el("b", {}, count(tokens[kind]))))));
}

function piece(/** @type {any} */ { type, tokens, text, param }) {
  return el("li", { "data-kind": type }, el("code", {}, text ?? `${type}: ${param}`), el("b", {}, count(tokens)));
}
