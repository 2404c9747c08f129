// @ts-check
/** The server's API: every request of the page goes through here and carries the key, if there is one. */

import { t } from "../page/texts.js";
import { sessionKey } from "./session_key.js";

const KEY = "tessera-key";
const HEALTH_TIMEOUT_MS = 5000;

/** Where the API is: beside the page. */
export const BASE = new URL("v1", document.baseURI).href;

/** What the server answered instead of what was asked for; `status` is 0 where no answer came at all. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{ status?: number, param?: string | null, code?: string | null }} facts
   */
  constructor(message, { status = 0, param = null, code = null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
    this.code = code;
  }

  /** Whether the same request may succeed later. */
  get mayPass() {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500;
  }
}

export const key = () => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";

/** Send this key along; `remember` keeps it for other tabs and other days. */
export function useKey(/** @type {string} */ value, { remember = false } = {}) {
  for (const storage of [sessionStorage, localStorage]) storage.removeItem(KEY);
  if (value) (remember ? localStorage : sessionStorage).setItem(KEY, value);
}

/**
 * A response with a good status. Raises ApiError, or AbortError where `signal` ended it.
 * @param {string} path
 * @param {{ body?: any, method?: string, signal?: AbortSignal }} options
 */
export async function request(path, { body, method = body ? "POST" : "GET", signal } = {}) {
  /** @type {Record<string, string>} */
  const headers = { ...authorization(), ...(body && { "Content-Type": "application/json" }) };
  if (body?.messages) headers["X-Session-Id"] = sessionKey(body.messages);
  const response = await received(fetch(`${BASE}${path}`, { method, headers, body: body && JSON.stringify(body), signal }));
  if (!response.ok) throw errorOf(response.status, await received(response.text()));
  return response;
}

/**
 * What comes over the network; a connection that breaks, also in the middle of a body, is an ApiError.
 * @template T
 * @param {Promise<T>} coming
 */
async function received(coming) {
  try {
    return await coming;
  } catch (error) {
    if (/** @type {Error} */ (error).name === "AbortError") throw error;
    throw new ApiError(t("unreachableError"));
  }
}

/** The served model and its adapters: `{ id, max_model_len, parent, description, limits }` each. */
export async function servedModels() {
  return (await received((await request("/models")).json())).data;
}

/** What a chat request would give the model. */
export async function preview(/** @type {any} */ body, /** @type {AbortSignal} */ signal) {
  return received((await request("/chat/completions/preview", { body, signal })).json());
}

/**
 * Upload a file for a day.
 * fetch() reports nothing about the way up, so this is an XMLHttpRequest; `onProgress` gets the share sent, 0 to 1.
 * @param {File} file
 * @param {{ onProgress: (share: number) => void, signal: AbortSignal }} options
 * @returns {Promise<{ id: string }>}
 */
export function upload(file, { onProgress, signal }) {
  const form = new FormData();
  form.set("purpose", "vision");
  form.set("expires_after[anchor]", "created_at");
  form.set("expires_after[seconds]", "86400");
  form.set("file", file, file.name);
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", `${BASE}/files`);
    for (const [name, value] of Object.entries(authorization())) sending.setRequestHeader(name, value);
    sending.upload.addEventListener("progress", (event) => onProgress(event.loaded / event.total));
    sending.addEventListener("load", () => {
      if (sending.status === 200) resolve(JSON.parse(sending.responseText));
      else reject(errorOf(sending.status, sending.responseText));
    });
    sending.addEventListener("error", () => reject(new ApiError(t("uploadBroke"))));
    sending.addEventListener("abort", () => reject(new DOMException("The upload was stopped.", "AbortError")));
    signal.addEventListener("abort", () => sending.abort());
    sending.send(form);
  });
}

/** The content of an upload, or null where it has more than `maxBytes`. */
export async function download(/** @type {string} */ id, /** @type {number} */ maxBytes, /** @type {AbortSignal} */ signal) {
  const response = await request(`/files/${id}/content`, { signal });
  if (Number(response.headers.get("content-length")) <= maxBytes) return received(response.blob());
  await response.body?.cancel();
  return null;
}

/** Have the server forget an upload; one that is gone already is fine. */
export async function forget(/** @type {string} */ id) {
  await request(`/files/${id}`, { method: "DELETE" }).catch(() => {});
}

/** Whether the engine answers: the state's name, such as "ready" or "loading"; "unreachable" where none comes soon. */
export async function health() {
  const signal = AbortSignal.timeout(HEALTH_TIMEOUT_MS);
  try {
    return (await (await fetch(new URL("health", document.baseURI), { signal })).json()).status;
  } catch {
    return "unreachable";
  }
}

/** The ApiError of an error body; a proxy's own page gives one, too. */
export function errorOf(/** @type {number} */ status, /** @type {string} */ text) {
  try {
    const { message, param, code } = JSON.parse(text).error;
    return new ApiError(message, { status, param, code });
  } catch {
    return new ApiError(t("statusError", { status }), { status });
  }
}

/** @returns {Record<string, string>} */
function authorization() {
  return key() ? { Authorization: `Bearer ${key()}` } : {};
}
