// @ts-check
/** Conversations in this browser (IndexedDB). Where there is none, or it is full, nothing is kept and the page works on. */

const NAME = "tessera";
const STORE = "conversations";

/** Opened with the page: the first time takes long, and a page that is left by then would have kept nothing. */
const opening = opened();
opening.catch(() => {}); // said when something is to be kept

/** All conversations, newest first; none where the browser keeps nothing. @returns {Promise<any[]>} */
export async function all() {
  try {
    const records = await done((await store("readonly")).getAll());
    return records.sort((/** @type {any} */ a, /** @type {any} */ b) => b.changedMs - a.changedMs);
  } catch {
    return [];
  }
}

/** One of them, or null. */
export async function load(/** @type {string} */ id) {
  try {
    return (await done((await store("readonly")).get(id))) ?? null;
  } catch {
    return null;
  }
}

/** Keep one; raises where the browser cannot. */
export async function put(/** @type {any} */ record) {
  const place = await store("readwrite");
  const finished = new Promise((resolve, reject) => {
    place.transaction.addEventListener("complete", resolve);
    for (const name of ["error", "abort"]) place.transaction.addEventListener(name, () => reject(place.transaction.error));
  });
  place.put(record);
  place.transaction.commit(); // now, so that it is kept even if the page is left
  await finished;
}

/** Forget one. */
export async function remove(/** @type {string} */ id) {
  await done((await store("readwrite")).delete(id));
}

async function store(/** @type {IDBTransactionMode} */ mode) {
  return (await opening).transaction(STORE, mode).objectStore(STORE);
}

async function opened() {
  const request = indexedDB.open(NAME, 1);
  request.addEventListener("upgradeneeded", () => request.result.createObjectStore(STORE, { keyPath: "id" }));
  return done(request);
}

/** @returns {Promise<any>} */
function done(/** @type {IDBRequest} */ request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}
