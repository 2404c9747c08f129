// @ts-check
/** A key by which proxies send requests on the same media to the same server, where these are in its caches. Pure. */

/**
 * The same for all turns of a conversation, and for others about the same first image or video.
 * @param {any[]} messages
 */
export function sessionKey(messages) {
  const parts = messages.flatMap(({ content }) => (Array.isArray(content) ? content : [])).filter(({ type }) => type !== "text");
  return hash(JSON.stringify(parts[0] ?? messages.find(({ role }) => role !== "system") ?? ""));
}

/** FNV-1a of 32 bits, twice: it tells sessions apart and protects nothing. */
function hash(/** @type {string} */ text) {
  let [one, two] = [0x811c9dc5, 0x01000193];
  for (let place = 0; place < text.length; place++) {
    one = Math.imul(one ^ text.charCodeAt(place), 0x01000193);
    two = Math.imul(two ^ text.charCodeAt(place), 0x85ebca6b);
  }
  return [one, two].map((half) => (half >>> 0).toString(16).padStart(8, "0")).join("");
}
