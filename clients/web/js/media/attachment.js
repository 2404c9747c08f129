/** A picture or a clip on its way to the server: chosen, uploading, there or refused. */

import { forget, upload } from "../server/api.js";

/** Dispatches "change" whenever one of its fields has changed. */
export class Attachment extends EventTarget {
  /** Of the file in this browser; revoked when it is discarded. */
  url;
  /** "uploading", "ready" or "failed". */
  state = "uploading";
  /** Share uploaded, 0 to 1. */
  progress = 0;
  /** The upload's id, once it is there. */
  id = null;
  /** Why it failed: an Error. */
  error = null;
  /** What the server says of it (a media report): sizes, grid, times. */
  report = null;
  #leaving = new AbortController();

  constructor(file) {
    super();
    this.file = file;
    this.url = URL.createObjectURL(file);
  }

  get name() {
    return this.file.name;
  }

  /** "image" or "video": as the server found, and until then as the browser guesses by the name. */
  get modality() {
    return this.report?.modality ?? (this.file.type.startsWith("video/") ? "video" : "image");
  }

  /** Upload it. */
  async send() {
    this.#change({ state: "uploading", progress: 0, error: null });
    try {
      const onProgress = (progress) => this.#change({ progress });
      const { id } = await upload(this.file, { onProgress, signal: this.#leaving.signal });
      if (this.#leaving.signal.aborted) await forget(id);
      else this.#change({ state: "ready", progress: 1, id });
    } catch (error) {
      if (error.name !== "AbortError") this.#change({ state: "failed", error });
    }
  }

  /** Take note of what the server says of it. */
  told(report) {
    if (JSON.stringify(report) !== JSON.stringify(this.report)) this.#change({ report });
  }

  /** The server cannot use it. */
  refuse(error) {
    this.#change({ state: "failed", error });
  }

  /** Give it up, here and on the server. */
  discard() {
    this.#leaving.abort();
    URL.revokeObjectURL(this.url);
    if (this.id) forget(this.id);
  }

  #change(fields) {
    Object.assign(this, fields);
    this.dispatchEvent(new Event("change"));
  }
}
