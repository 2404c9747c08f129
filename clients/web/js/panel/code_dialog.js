/** The dialog that shows a request as code, in three languages. */

import { BASE, key } from "../server/api.js";
import { byId, el } from "../page/dom.js";
import { snippets } from "../server/snippets.js";
import { copy } from "../conversation/turns.js";

const HINTS = {
  curl: "Run it where the files are.",
  Python: "pip install openai; run it where the files are.",
  JavaScript: "npm install openai; run it with Node where the files are.",
};
let language = "curl";

/** @param names file name of each upload's id in the body. */
export function showCode(body, names) {
  const programs = snippets(body, { names, base: BASE, needsKey: key() !== "" });
  const tabs = Object.keys(programs).map((name) =>
    el("button", { type: "button", role: "tab", "aria-controls": "code-text", onclick: () => select(name) }, name));
  const select = (name) => {
    language = name;
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", tab.textContent === name);
      tab.tabIndex = tab.textContent === name ? 0 : -1;
    }
    byId("code-text").textContent = programs[name];
    byId("code-hint").textContent = HINTS[name];
  };
  byId("code-tabs").replaceChildren(...tabs);
  byId("code-tabs").onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs.at((tabs.indexOf(document.activeElement) + step) % tabs.length);
    next.focus();
    next.click();
  };
  byId("code-copy").onclick = (event) => copy(event.target, programs[language]);
  select(language);
  byId("code").showModal();
}
