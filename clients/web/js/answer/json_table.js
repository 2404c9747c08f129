// @ts-check
/** An answer that is JSON, as a table: fields of an object, rows of a list. */

import { el } from "../page/dom.js";
import { t } from "../page/texts.js";

const FENCED = /^```(?:json)?\s*\n([\s\S]*?)\n?```$/;

/** The object or list that a text is, alone or in a fence; undefined where it is none. */
export function parsed(/** @type {string} */ text) {
  const inner = FENCED.exec(text.trim())?.[1] ?? text.trim();
  if (!/^[[{]/.test(inner)) return undefined;
  try {
    return JSON.parse(inner);
  } catch {
    return undefined;
  }
}

/** The table, and the text itself below it. */
export function jsonView(/** @type {any} */ value) {
  return el("div", { class: "json" },
    el("div", { class: "scrolls", tabindex: 0, role: "group", "aria-label": t("answerAsTable") }, table(value)),
    el("details", {}, el("summary", {}, "JSON"), el("pre", { tabindex: 0 }, el("code", {}, JSON.stringify(value, null, 2)))));
}

const isPlain = (/** @type {any} */ value) => value === null || typeof value !== "object";

/** @returns {any} */
export function table(/** @type {any} */ value) {
  if (isPlain(value)) return el("span", {}, typeof value === "string" ? value : JSON.stringify(value));
  if (Array.isArray(value) && value.every(isPlain)) return el("span", {}, value.map((each) => (typeof each === "string" ? each : JSON.stringify(each))).join(", "));
  if (!Array.isArray(value)) {
    return el("table", {}, el("tbody", {}, ...Object.entries(value).map(([name, each]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, table(each))))));
  }
  const rows = value.filter((row) => row !== null && typeof row === "object" && !Array.isArray(row));
  if (!value.length || rows.length < value.length) return el("ol", {}, ...value.map((each) => el("li", {}, table(each))));
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return el("table", {},
    el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...columns.map((name) => el("td", {}, name in row ? table(row[name]) : ""))))));
}
