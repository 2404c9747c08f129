// @ts-check
/** Something enlarged, in a dialog that it fits into. */

import { byId, el } from "./dom.js";

/**
 * @param {string} title
 * @param {any} content an element
 * @param {{ width: number, height: number }} size its proportions
 */
export function zoom(title, content, { width, height }) {
  const frame = el("div", { class: "zoomed" }, content);
  frame.style.setProperty("--ratio", String(width / height));
  byId("zoom-title").textContent = title;
  byId("zoom-content").replaceChildren(frame);
  byId("zoom").showModal();
}

byId("zoom").addEventListener("close", () => byId("zoom-content").replaceChildren()); // a video plays no longer
