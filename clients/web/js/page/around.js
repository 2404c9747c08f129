// @ts-check
/** Keys and buttons of the page as a whole: sending, stopping, the panel, the theme, dialogs. */

import { byId } from "./dom.js";
import { t } from "./texts.js";

const THEME = "tessera-theme";
const field = byId("question");

/**
 * @param {{ submit: () => void, stop: () => boolean, startAnew: () => void, lastQuestion: () => string }} page
 *   stop: whether there was something to stop.
 */
export function watchPage({ submit, stop, startAnew, lastQuestion }) {
  field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "ArrowUp" && !field.value) {
      event.preventDefault();
      field.value = lastQuestion();
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  byId("stop").addEventListener("click", stop);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (!stop()) showPanel(false);
  });
  byId("new").addEventListener("click", startAnew);
  byId("panel-toggle").addEventListener("click", () => showPanel(!document.body.classList.contains("panel-open")));
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog")?.close());
  }
  watchTheme();
}

function showPanel(/** @type {boolean} */ open) {
  document.body.classList.toggle("panel-open", open);
  byId("panel-toggle").setAttribute("aria-expanded", open);
  byId("panel-toggle").setAttribute("aria-label", t(open ? "hideDetails" : "details"));
}

/** Light or dark as the person says; as the system does otherwise. */
function watchTheme() {
  const select = byId("theme");
  const use = (/** @type {string} */ theme) => {
    document.documentElement.dataset.theme = theme;
    select.value = theme;
  };
  use(localStorage.getItem(THEME) ?? "system");
  select.addEventListener("change", () => {
    localStorage.setItem(THEME, select.value);
    use(select.value);
  });
}
