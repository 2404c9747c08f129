// @ts-check
/** The top of the page: the state of the server, and the choice among its models. */

import { byId, el } from "./dom.js";
import { count } from "./format.js";
import { t } from "./texts.js";

/** @type {Record<string, import("./texts.js").TextKey>} */
const STATES = { unknown: "stateUnknown", loading: "stateLoading", restarting: "stateRestarting", unreachable: "stateUnreachable", locked: "stateLocked", failed: "stateFailed" };

/**
 * @param {import("../server/state.js").Server} server
 * @param {string | null} chosen name of the model that is asked
 */
export function showServer(server, chosen) {
  const { state, models, wrongKey } = server;
  const model = models.find(({ id }) => id === chosen);
  byId("model").dataset.state = state;
  const ready = state === "ready" && model;
  const choice = models.length > 1 && ready;
  byId("model-select").hidden = !choice;
  byId("model-text").replaceChildren(...(ready
    ? [choice ? "" : el("b", {}, model.id), el("span", { class: "context" }, t("contextOf", { n: count(model.max_model_len) }))]
    : [wrongKey ? t("keyInvalid") : t(STATES[state] ?? "stateFailed")]));
  if (choice) {
    const shown = [...byId("model-select").options].map(({ value }) => value).join("\n");
    if (shown !== models.map(({ id }) => id).join("\n")) byId("model-select").replaceChildren(...models.map(({ id, parent }) => el("option", { value: id }, parent ? t("adapterOf", { name: id }) : id)));
    byId("model-select").value = model.id;
  }
}

/** With several tabs open, each says what is in it. */
export function showTitle(/** @type {string} */ title, /** @type {string | null} */ model) {
  document.title = [title, model, "Tessera"].filter(Boolean).join(" · ");
}
