// @ts-check
/** The dialog that asks the same with other settings or another model, to set two answers beside each other. */

import { byId, el } from "../page/dom.js";
import { Settings } from "../panel/settings.js";

const dialog = byId("compare");
/** @type {Settings | null} */
let settings = null;

/**
 * @param {import("./conversation.js").Answer} answer the one to compare with
 * @param {string[]} models that can be asked
 * @param {(model: string, settings: import("../panel/settings.js").Values) => void} ask
 */
export function openComparison(answer, models, ask) {
  settings ??= new Settings(byId("compare-settings"));
  settings.write(answer.settings.fields);
  const select = byId("compare-model");
  select.replaceChildren(...models.map((name) => el("option", { value: name, selected: name === answer.model }, name)));
  byId("compare-model-row").hidden = models.length < 2;
  byId("compare-settings").onsubmit = () => { // the browser has checked the fields
    dialog.close();
    ask(select.value || answer.model, /** @type {Settings} */ (settings).read());
  };
  dialog.showModal();
  byId("compare-settings").elements.max_pixels.focus();
}
