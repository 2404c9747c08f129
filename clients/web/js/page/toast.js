// @ts-check
/** A sentence at the foot of the page for some seconds, with something to take back what it tells of. */

import { byId, el, link } from "./dom.js";
import { t } from "./texts.js";

const SHOWN_MS = 9_000;
let timer = 0;
/** What becomes final once the sentence is gone. */
let settle = () => {};

/**
 * @param {string} text
 * @param {{ undo?: () => void, done?: () => void }} actions `undo` takes it back; `done` is called where nobody did.
 */
export function toast(text, { undo, done = () => {} } = {}) {
  settle();
  clearTimeout(timer);
  const close = (/** @type {() => void} */ then) => {
    clearTimeout(timer);
    settle = () => {};
    byId("toast").replaceChildren();
    then();
  };
  settle = () => close(done);
  // A dialog that is open lets nothing outside of it be used.
  const dialog = document.querySelector("dialog[open]");
  (dialog ?? document.body).append(byId("toast"));
  dialog?.addEventListener("close", () => document.body.append(byId("toast")), { once: true });
  byId("toast").replaceChildren(el("p", {}, text), undo ? link(t("undo"), () => close(undo)) : "");
  timer = setTimeout(settle, SHOWN_MS);
}
