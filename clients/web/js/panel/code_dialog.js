// @ts-check
/** The dialog that shows a request as code, in three languages. */

import { BASE, key } from "../server/api.js";
import { byId, el } from "../page/dom.js";
import { t } from "../page/texts.js";
import { snippets } from "../server/snippets.js";
import { copy } from "../answer/copy.js";

/** @type {Record<string, import("../page/texts.js").TextKey>} */
const HINTS = { curl: "codeHintCurl", Python: "codeHintPython", JavaScript: "codeHintJavaScript" };
let language = "curl";

/**
 * @param {any} body of the request
 * @param {import("../media/attachment.js").Attachment[]} attachments whose media are in it
 */
export function showCode(body, attachments) {
  const files = attachments.flatMap(({ source, name }) => (source?.file_data || source?.url ? [] : [{ id: source?.file_id ?? name, name }]));
  const inline = attachments.flatMap(({ source, name }) => (source?.file_data ? [{ id: source.file_data, name }] : []));
  const programs = /** @type {Record<string, string>} */ (snippets(body, { files, inline, base: BASE, needsKey: key() !== "" }));
  const tabs = Object.keys(programs).map((name) =>
    el("button", { type: "button", role: "tab", "aria-controls": "code-text", onclick: () => select(name) }, name));
  const select = (/** @type {string} */ name) => {
    language = name;
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", tab.textContent === name);
      tab.tabIndex = tab.textContent === name ? 0 : -1;
    }
    byId("code-text").textContent = programs[name];
    byId("code-hint").textContent = t(HINTS[name]);
  };
  byId("code-tabs").replaceChildren(...tabs);
  byId("code-tabs").onkeydown = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? 0;
    if (!step) return;
    const next = tabs.at((tabs.indexOf(document.activeElement) + step) % tabs.length);
    next.focus();
    next.click();
  };
  byId("code-copy").onclick = (/** @type {any} */ event) => copy(event.target, programs[language]);
  select(language);
  byId("code").showModal();
}
