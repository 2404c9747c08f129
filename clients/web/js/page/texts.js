// @ts-check
/** The page's words, in the browser's language where we have it: English or Chinese. */

import { en } from "../texts/en.js";
import { zh } from "../texts/zh.js";

/** @typedef {keyof typeof en} TextKey */

/** @type {Record<string, Record<TextKey, string>>} */
const LANGUAGES = { en, zh };

/** "en" or "zh": the first that the browser prefers. */
export const language = navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => tag in LANGUAGES) ?? "en";
const texts = LANGUAGES[language];
const rules = new Intl.PluralRules(language);

/**
 * A text with its `{blanks}` filled in.
 * @param {TextKey} key
 * @param {Record<string, string | number>} values
 */
export function t(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/**
 * A text for a number, as the language counts: `key` for one, `key` and "s" for others.
 * @param {TextKey} one
 * @param {TextKey} many
 * @param {number} number
 * @param {string} shown the number as people read it
 */
export const counted = (one, many, number, shown) => t(rules.select(number) === "one" ? one : many, { n: shown });

/** Put the words into a page written in English: `data-t` names its text, `data-t-label` and the like its attributes. */
export function translate(root = document) {
  if (root === document) document.documentElement.lang = language;
  const attributes = { tLabel: "aria-label", tTitle: "title", tPlaceholder: "placeholder" };
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("*"))) {
    const { t: key, ...others } = element.dataset;
    if (key) element.textContent = t(/** @type {TextKey} */ (key));
    for (const [name, attribute] of Object.entries(attributes)) {
      if (others[name]) element.setAttribute(attribute, t(/** @type {TextKey} */ (others[name])));
    }
  }
}
