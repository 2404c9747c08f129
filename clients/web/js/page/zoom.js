/** Something enlarged, in a dialog. */

import { byId } from "./dom.js";

export function zoom(title, content) {
  byId("zoom-title").textContent = title;
  byId("zoom-content").replaceChildren(content);
  byId("zoom").showModal();
}
