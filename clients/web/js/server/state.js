/** Which model answers, and whether it does: asked now and then, shown at the top of the page. */

import { health, servedModel } from "./api.js";
import { byId, el } from "../page/dom.js";
import { count } from "../page/format.js";

const TEXTS = {
  loading: "The model is loading…",
  restarting: "The model is being restarted…",
  unreachable: "The server cannot be reached",
};
const SOON_MS = 1000;
const LATER_MS = 10_000;

/** Dispatches "change" when the state or the model has changed, and "locked" when a key is needed that is not there. */
export class Server extends EventTarget {
  /** Name of the model; null until it is known. */
  model = null;
  state = "unknown";
  #title = [];
  #timer = 0;

  /** Look now, and again from time to time. */
  async watch() {
    clearTimeout(this.#timer);
    const state = document.hidden ? this.state : await health();
    try {
      if (state === "ready" && !this.model) this.#know(await servedModel());
      this.#change(state);
    } catch (error) {
      this.#change(error.status === 401 ? "locked" : state, error.message);
    }
    this.#timer = setTimeout(() => this.watch(), this.state === "ready" ? LATER_MS : SOON_MS);
  }

  #know({ id, max_model_len }) {
    this.model = id;
    this.#title = [id, el("span", { class: "context" }, `, ${count(max_model_len)} tokens`)];
  }

  #change(state, text = TEXTS[state] ?? `The model is ${state}`) {
    if (state === this.state) return;
    this.state = state;
    byId("model").dataset.state = state;
    byId("model-text").replaceChildren(...(state === "ready" ? this.#title : [text]));
    this.dispatchEvent(new Event(state === "locked" ? "locked" : "change"));
  }
}
