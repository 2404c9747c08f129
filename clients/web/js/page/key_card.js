// @ts-check
/** The card that asks for the server's key, where people look. */

import { key, useKey } from "../server/api.js";
import { byId } from "./dom.js";
import { t } from "./texts.js";

const card = byId("key-card");

/**
 * @param {() => Promise<void>} connect called with the new key in place
 */
export function watchKey(connect) {
  byId("key-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    const given = byId("key").value.trim();
    if (!given) return;
    useKey(given, { remember: byId("key-remember").checked });
    byId("key-problem").textContent = t("connecting");
    connect();
  });
  byId("key-change").addEventListener("click", () => {
    byId("key").value = key();
    show({ wrong: false });
  });
  byId("key-close").addEventListener("click", () => (card.hidden = true));
}

/** Ask for the key, or say that it is not right; in the middle of an empty page, above the composer otherwise. */
export function askForKey(/** @type {boolean} */ wrong) {
  show({ wrong });
}

/** It is not needed, or was right. */
export function keyIsRight() {
  if (!card.hidden) byId("question").focus();
  card.hidden = true;
}

function show({ wrong = false }) {
  byId("key-problem").textContent = wrong ? t("keyInvalid") : "";
  byId("key").setAttribute("aria-invalid", String(wrong));
  const empty = !byId("turns").childElementCount;
  if (card.hidden || !card.contains(document.activeElement)) {
    if (empty) byId("welcome").before(card);
    else byId("composer").before(card);
  }
  card.hidden = false;
  byId("key").focus();
  byId("key").select();
}
