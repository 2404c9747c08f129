/** The server's API: every request of the page goes through here and carries the key, if there is one. */

const KEY = "tessera-key";

/** Where the API is: beside the page. */
export const BASE = new URL("v1", document.baseURI).href;

/** What the server answered instead of what was asked for; `status` is 0 where no answer came at all. */
export class ApiError extends Error {
  constructor(message, { status = 0, param = null, code = null } = {}) {
    super(message);
    Object.assign(this, { status, param, code });
  }
}

export const key = () => sessionStorage.getItem(KEY) ?? "";

export function useKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/** A response with a good status. Raises ApiError, or AbortError where `signal` ended it. */
export async function request(path, { body, method = body ? "POST" : "GET", signal } = {}) {
  const headers = { ...authorization(), ...(body && { "Content-Type": "application/json" }) };
  let response;
  try {
    response = await fetch(`${BASE}${path}`, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (!response.ok) throw errorOf(response.status, await response.text());
  return response;
}

/** The served model: `{ id, max_model_len }`. */
export async function servedModel() {
  return (await (await request("/models")).json()).data[0];
}

/** What a chat request would give the model. */
export async function preview(body, signal) {
  return (await request("/chat/completions/preview", { body, signal })).json();
}

/**
 * Upload a file for a day.
 * fetch() tells nothing about the way up, so this is an XMLHttpRequest; `onProgress` gets the share sent, 0 to 1.
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
    sending.addEventListener("error", () => reject(new ApiError("The upload did not get through.")));
    sending.addEventListener("abort", () => reject(new DOMException("The upload was stopped.", "AbortError")));
    signal.addEventListener("abort", () => sending.abort());
    sending.send(form);
  });
}

/** Have the server forget an upload; one that is gone already is fine. */
export async function forget(id) {
  await request(`/files/${id}`, { method: "DELETE" }).catch(() => {});
}

/** Whether the engine answers: the state's name, such as "ready" or "loading", or "unreachable". */
export async function health() {
  try {
    return (await (await fetch(new URL("health", document.baseURI))).json()).status;
  } catch {
    return "unreachable";
  }
}

/** The ApiError of an error body; a proxy's own page gives one, too. */
export function errorOf(status, text) {
  try {
    const { message, param, code } = JSON.parse(text).error;
    return new ApiError(message, { status, param, code });
  } catch {
    return new ApiError(`The server answered with status ${status}.`, { status });
  }
}

function authorization() {
  return key() ? { Authorization: `Bearer ${key()}` } : {};
}
