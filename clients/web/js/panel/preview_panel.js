/** The panel "What the model sees": the size of the prompt, each medium, and the prompt piece by piece. */

import { byId, el } from "../page/dom.js";
import { count } from "../page/format.js";
import { seenView } from "../media/preview_panel_media.js";

const KINDS = [
  ["image", "pictures"],
  ["video", "clips"],
  ["text", "text"],
  ["control", "format"],
];
const views = new WeakMap();

/** Show what the server says of a prompt (the answer of a preview), and the attachments in focus. */
export function showPreview(told, attachments) {
  byId("sees").replaceChildren(
    budget(told),
    ...attachments.filter((each) => each.report).map(view),
    el("details", { class: "pieces", open: byId("sees").querySelector(".pieces")?.open ?? false },
      el("summary", {}, "The prompt, piece by piece"), el("ol", {}, ...told.parts.map(piece))),
  );
}

/** Say why nothing can be shown. */
export function showProblem(text) {
  byId("sees").replaceChildren(el("p", { class: "hint" }, text));
}

/** Go back to the beginning. */
const beginning = [...byId("sees").childNodes];
export const showNothing = () => byId("sees").replaceChildren(...beginning);

/** Views are kept while their report is, since drawing a clip takes a while. */
function view(attachment) {
  const known = views.get(attachment);
  if (known?.report === attachment.report) return known.element;
  const element = seenView(attachment);
  views.set(attachment, { report: attachment.report, element });
  return element;
}

function budget({ prompt_tokens, max_model_len, prompt_tokens_details: tokens }) {
  const share = (number) => `${(100 * number) / max_model_len}%`;
  const parts = KINDS.filter(([kind]) => tokens[kind]);
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  for (const [kind] of parts) {
    const segment = el("span", { "data-kind": kind });
    segment.style.inlineSize = share(tokens[kind]); // not an attribute: the page's policy refuses those
    bar.append(segment);
  }
  return el("div", { class: "budget" },
    el("p", {}, el("b", { id: "prompt-tokens" }, count(prompt_tokens)), ` of ${count(max_model_len)} tokens`),
    bar,
    el("ul", {}, ...parts.map(([kind, name]) => el("li", { "data-kind": kind }, el("span", {}, name), el("b", {}, count(tokens[kind]))))));
}

function piece({ type, tokens, text, param }) {
  return el("li", { "data-kind": type }, el("code", {}, text ?? `${type}: ${param}`), el("b", {}, count(tokens)));
}
