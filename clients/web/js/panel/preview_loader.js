// @ts-check
/** Previews of the prompt while it is written: one at a time, the newest counts, and not for every letter. */

import { preview } from "../server/api.js";

const TYPING_MS = 600;

export class PreviewLoader {
  #timer = 0;
  /** @type {AbortController | null} */
  #running = null;

  /**
   * @param {() => any} body makes the request to preview, or null where there is nothing to show yet.
   * @param {(told: any) => void} show gets the request's answer, or null.
   * @param {(error: any) => void} fail gets the ApiError.
   */
  constructor(body, show, fail) {
    this.body = body;
    this.show = show;
    this.fail = fail;
  }

  /** The prompt has changed; `typing` waits for a pause. */
  refresh({ typing = false } = {}) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#run(), typing ? TYPING_MS : 0);
  }

  async #run() {
    this.#running?.abort();
    const body = this.body();
    if (!body) return this.show(null);
    const running = (this.#running = new AbortController());
    try {
      const told = await preview(body, running.signal);
      if (!running.signal.aborted) this.show(told);
    } catch (error) {
      if (!running.signal.aborted) this.fail(error);
    }
  }
}
