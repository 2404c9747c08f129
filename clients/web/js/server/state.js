// @ts-check
/** Which models there are, and whether they answer: asked now and then, and at once after a failure. */

import { ApiError, health, key, servedModels } from "./api.js";

const SOON_MS = 1000;
const LATER_MS = 10_000;
/** How often to look soon after a failure: a server that is stopping still answers for a while. */
const NUM_DOUBTS = 5;

/** @typedef {{ id: string, max_model_len: number, parent?: string, description?: string, limits?: Record<string, number> }} Model */

/** Dispatches "change" when the state or the models have changed. */
export class Server extends EventTarget {
  /** "unknown", "loading", "restarting", "ready", "failed", "unreachable", or "locked" where a key is missing or wrong. */
  state = "unknown";
  /** @type {Model[]} the model, then its adapters; empty until they are known */
  models = [];
  /** Whether a key was sent and refused. */
  wrongKey = false;
  #timer = 0;
  #looks = 0;
  #doubts = 0;
  /** The key that was refused. @type {string | null} */
  #refused = null;

  /** Look now, and again from time to time. */
  async watch() {
    clearTimeout(this.#timer);
    const look = ++this.#looks;
    const next = document.hidden ? { state: this.state } : await this.#seen();
    if (look !== this.#looks) return; // somebody looked again meanwhile
    this.#become(next);
    const isTrusted = this.state === "ready" && this.#doubts-- <= 0;
    this.#timer = setTimeout(() => this.watch(), isTrusted ? LATER_MS : SOON_MS);
  }

  /** There is a key to try, which may be the same again. */
  async tryKey() {
    this.#refused = null;
    await this.watch();
  }

  /** Something failed: see at once whether it was the server, its model or the key. */
  doubt(/** @type {ApiError} */ error) {
    if (error.status === 401) this.#become({ state: "locked" });
    else if (error.code === "model_not_found") this.#become({ state: "restarting" });
    if (!error.mayPass && error.code !== "model_not_found") return;
    this.#doubts = NUM_DOUBTS;
    this.watch();
  }

  /** @returns {Promise<{ state: string, models?: Model[] }>} */
  async #seen() {
    const state = await health();
    // What is served may be another model each time the server comes back.
    if (state !== "ready" || this.state === "ready") return { state };
    if (this.state === "locked" && key() === this.#refused) return { state: "locked" };
    try {
      return { state, models: await servedModels() };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return { state: error.status === 401 ? "locked" : error.status ? state : "unreachable" };
    }
  }

  #become(/** @type {{ state: string, models?: Model[] }} */ { state, models = this.models }) {
    this.#refused = state === "locked" ? key() : null;
    const wrongKey = state === "locked" && key() !== "";
    if (state === this.state && wrongKey === this.wrongKey && models === this.models) return;
    Object.assign(this, { state, models, wrongKey });
    this.dispatchEvent(new Event("change"));
  }
}
