// @ts-check
/** Copying, with the news on the button itself. */

import { announce } from "../page/dom.js";
import { t } from "../page/texts.js";

/** Copy a text and say so on the button. */
export async function copy(/** @type {HTMLElement} */ button, /** @type {string} */ text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = t("copied");
    announce(t("copied"));
  } catch {
    button.textContent = t("cannotCopy");
  }
  setTimeout(() => (button.textContent = label), 1500);
}
