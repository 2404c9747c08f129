// @ts-check
/** A picture or a video that goes with a question: chosen here, on its way to the server, there, or brought back by a reload. */

import { ApiError, download, forget, upload } from "../server/api.js";
import { tooLarge } from "../server/errors.js";
import { t } from "../page/texts.js";
import { blobOf, previewOf } from "./small_preview.js";

/** Up to this size a file may stand in the request itself where the server keeps no uploads; base64 adds a third. */
const INLINE_MAX_BYTES = 24 << 20;
/** Larger uploads are not fetched back after a reload. */
const FETCH_MAX_BYTES = 64 << 20;
/** Codes of a server that keeps no files, or no more of them. */
const NO_UPLOADS = new Set(["files_unavailable", "storage_full", "storage_unavailable", "file_quota_exceeded"]);
const NEVER = /^(?:text\/|audio\/|application\/(?:pdf|json|zip|msword|vnd))/;

/** Dispatches "change" whenever one of its fields has changed. */
export class Attachment extends EventTarget {
  name = "";
  /** @type {File | null} of this browser, or fetched back from the server */
  file = null;
  /** What a page element can show: the file, or a small preview of it. @type {string | null} */
  url = null;
  /** Whether `url` is the whole file. */
  whole = false;
  /** A small JPEG as base64. @type {string | null} */
  preview = null;
  /** "uploading", "ready", "failed", or "gone": neither here nor on the server any more. */
  state = "uploading";
  /** Share uploaded, 0 to 1. */
  progress = 0;
  /** What names it in requests: `{ file_id }`, `{ file_data }` or `{ url }`. @type {Record<string, string> | null} */
  source = null;
  /** Why it failed. @type {any} */
  error = null;
  /** What the server says of it (a media report): sizes, grid, times. @type {any} */
  report = null;
  /** The part of a video that is asked about, in seconds. @type {{ start: number | null, end: number | null }} */
  range = { start: null, end: null };
  /** The person goes on without it. */
  leftOut = false;
  /** @type {Promise<void> | null} */
  #sending = null;
  #type = "";
  #leaving = new AbortController();

  /** @param {File} file @param {Record<string, number>} limits of the server, in bytes, by what they limit */
  static ofFile(file, limits = {}) {
    const made = new Attachment();
    made.#hold(file);
    made.name = file.name;
    const limit = limits[`max_${made.modality}_bytes`];
    if (NEVER.test(file.type)) made.refuse(new ApiError(t("neither"), { status: 400 }));
    else if (limit && file.size > limit) made.refuse(new ApiError(tooLarge(file.size, limit, made.modality), { status: 400 }));
    else made.send();
    previewOf(file).then((preview) => made.#change({ preview }));
    return made;
  }

  /** What the server is to fetch itself. */
  static ofAddress(/** @type {string} */ url) {
    const made = new Attachment();
    const { pathname, hostname } = new URL(url);
    made.name = pathname.split("/").at(-1) || hostname;
    made.#type = /\.(?:mp4|webm|mov|mkv|avi|m4v)$/i.test(pathname) ? "video/" : "image/";
    made.source = { url };
    made.state = "ready";
    return made;
  }

  /** One that was kept; see `kept`. */
  static revived(/** @type {any} */ { name, type, source, preview, report, range, leftOut }) {
    const made = new Attachment();
    const state = source ? "ready" : "gone";
    Object.assign(made, { name, source, preview, report, leftOut, range, state });
    made.#type = type;
    if (preview) made.url = URL.createObjectURL(blobOf(preview));
    if (source?.file_id) made.#fetchBack(source.file_id);
    return made;
  }

  /** What is kept of it over a reload: no media, only a small preview and how the server calls it. */
  get kept() {
    const { name, preview, report, range, leftOut } = this;
    const source = this.source?.file_data ? null : this.source;
    return { name, type: this.type, source, preview, report, range, leftOut };
  }

  get type() {
    return this.file?.type || this.#type;
  }

  /** "image" or "video": as the server found, and until then as the browser guesses by the name. */
  get modality() {
    return this.report?.modality ?? (this.type.startsWith("video/") ? "video" : "image");
  }

  /** What of it changes the question, to compare. */
  get asked() {
    const { state, source, range, leftOut } = this;
    return JSON.stringify({ state, source: source?.file_data?.length ?? source, range, leftOut });
  }

  /** Whether neither this page nor the server has it, and it is not on its way. */
  get isLost() {
    return this.source === null && this.state !== "uploading";
  }

  /** Whether trying it again may help. */
  get mayPass() {
    return this.state === "failed" && this.file !== null && this.error.mayPass !== false;
  }

  /** Upload it; where the server keeps no files, it goes along in each request. */
  send() {
    this.#change({ state: "uploading", progress: 0, error: null });
    this.#sending = this.#upload(/** @type {File} */ (this.file));
    return this.#sending;
  }

  async #upload(/** @type {File} */ file) {
    try {
      const onProgress = (/** @type {number} */ progress) => this.#change({ progress });
      const { id } = await upload(file, { onProgress, signal: this.#leaving.signal });
      if (this.#leaving.signal.aborted) await forget(id);
      else this.#change({ state: "ready", progress: 1, source: { file_id: id } });
    } catch (error) {
      if (!(error instanceof ApiError)) return; // it was given up
      if (error.code && NO_UPLOADS.has(error.code)) await this.#inline(file, error);
      else this.#change({ state: "failed", error });
    }
  }

  async #inline(/** @type {File} */ file, /** @type {ApiError} */ error) {
    if (file.size > INLINE_MAX_BYTES) {
      return this.#change({ state: "failed", error: new ApiError(t("uploadsOff", { limit: INLINE_MAX_BYTES >> 20 }), error) });
    }
    const reader = new FileReader();
    reader.addEventListener("error", () => this.#change({ state: "failed", error: new ApiError(t("unreadableFile"), { status: 400 }) }));
    reader.addEventListener("load", () => this.#change({ state: "ready", progress: 1, source: { file_data: String(reader.result) } }));
    reader.readAsDataURL(file);
  }

  /** The server has lost the upload: send it once more from here. Whether that was possible. */
  async renew() {
    if (!this.file) {
      this.#change({ state: "gone", source: null });
      return false;
    }
    await this.send();
    return /** @type {string} */ (this.state) === "ready";
  }

  /** The person has chosen the file again. */
  replace(/** @type {File} */ file) {
    this.#hold(file);
    this.name = file.name;
    this.send();
    previewOf(file).then((preview) => this.#change({ preview }));
  }

  /** Go on without it, or with it again. */
  leaveOut(leftOut = true) {
    this.#change({ leftOut });
  }

  /** Ask about a part of a video only. */
  cut(/** @type {{ start: number | null, end: number | null }} */ range) {
    this.#change({ range });
  }

  /** Take note of what the server says of it. */
  told(/** @type {any} */ report) {
    if (JSON.stringify(report) !== JSON.stringify(this.report)) this.#change({ report });
  }

  /** The server cannot use it. */
  refuse(/** @type {any} */ error) {
    this.#change({ state: "failed", error });
  }

  /** Give it up, here and on the server. */
  discard() {
    this.#leaving.abort();
    if (this.url) URL.revokeObjectURL(this.url);
    if (this.source?.file_id) forget(this.source.file_id);
  }

  /** Have the whole file again, as long as the server has it. */
  async #fetchBack(/** @type {string} */ id) {
    try {
      const content = await download(id, FETCH_MAX_BYTES, this.#leaving.signal);
      if (!content) return;
      this.#hold(new File([content], this.name, { type: this.#type || content.type }));
      this.#change({});
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) this.#change({ state: "gone", source: null });
    }
  }

  #hold(/** @type {File} */ file) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.file = file;
    this.url = URL.createObjectURL(file);
    this.whole = true;
  }

  #change(/** @type {Record<string, any>} */ fields) {
    Object.assign(this, fields);
    this.dispatchEvent(new Event("change"));
  }
}
