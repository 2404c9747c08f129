/** Where files come from: the button, the clipboard, and being dropped anywhere on the page. */

import { byId } from "../page/dom.js";

/** Calls `take` with each list of files. */
export function watchFiles(take) {
  byId("attach").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  watchDrops(take);
}

function watchDrops(take) {
  const zone = byId("dropzone");
  const brings = (event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
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
    take([...event.dataTransfer.files]);
  });
}
