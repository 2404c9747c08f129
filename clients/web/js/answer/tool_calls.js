// @ts-check
/** Calls of functions as cards, with a field for what each function gives back. */

import { el } from "../page/dom.js";
import { t } from "../page/texts.js";
import { table } from "./json_table.js";

/** The cards of some calls. @param {import("../server/chat.js").Call[]} calls */
export const callCards = (calls) => calls.map((call) => el("section", { class: "call", "aria-label": t("callOf", { name: call.name }) }, el("h3", {}, el("code", {}, call.name)), given(call.arguments)));

/**
 * Fields for what the functions give back; the model goes on with it.
 * @param {import("../server/chat.js").Call[]} calls
 * @param {(results: { id: string, name: string, content: string }[]) => void} send
 */
export function resultFields(calls, send) {
  const fields = calls.map(({ name }) => el("textarea", { rows: 2, "aria-label": t("resultOf", { name }), placeholder: t("resultOf", { name }) }));
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    send(calls.map(({ id, name }, index) => ({ id, name, content: fields[index].value })));
  };
  return el("form", { class: "results only-last idle-only", onsubmit: submit }, ...fields, el("button", { type: "submit", class: "solid" }, t("sendResults")));
}

/** What was given back. @param {{ name: string, content: string }[]} results */
export const resultCards = (results) => results.map(({ name, content }) => el("p", {}, el("code", {}, name), ` → ${content}`));

function given(/** @type {string} */ text) {
  try {
    return el("div", { class: "scrolls" }, table(JSON.parse(text)));
  } catch {
    return el("code", {}, text); // it is still being written
  }
}
