// @ts-check
/** Where files come from: the button, the clipboard, and being dropped anywhere on the page. */

import { byId } from "../page/dom.js";

/** @type {import("./attachment.js").Attachment | null} whose file is being chosen once more */
let missing = null;

/** Calls `take` with each list of files. */
export function watchFiles(/** @type {(files: File[]) => void} */ take) {
  const input = byId("files");
  byId("attach").addEventListener("click", () => input.click());
  input.addEventListener("cancel", () => (missing = null));
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (missing && files.length) missing.replace(files.shift());
    missing = null;
    if (files.length) take(files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  watchDrops(take);
}

/** Ask for the file of an attachment that is gone. */
export function chooseAgain(/** @type {import("./attachment.js").Attachment} */ attachment) {
  missing = attachment;
  byId("files").click();
}

function watchDrops(/** @type {(files: File[]) => void} */ take) {
  const zone = byId("dropzone");
  const brings = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
  document.addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    zone.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) zone.hidden = true; // it left the window, not only an element
  });
  document.addEventListener("drop", (event) => {
    zone.hidden = true;
    if (!brings(event)) return;
    event.preventDefault();
    take([...(event.dataTransfer?.files ?? [])]);
  });
}
