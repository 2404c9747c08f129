/** The attachments that go with the next question, above the text. */

import { byId, el, icon } from "../page/dom.js";
import { bytes, plural } from "../page/format.js";

const tray = byId("tray");

/** Show one more attachment; `remove` and `retry` are called with it. */
export function addToTray(attachment, { remove, retry }) {
  const status = el("span", { class: "status" });
  const bar = el("progress", { max: 1, "aria-label": `Upload of ${attachment.name}` });
  const again = el("button", { type: "button", class: "link", hidden: true, onclick: () => retry(attachment) }, "Try again");
  const item = el("li", { class: "chip" },
    thumbnail(attachment),
    el("div", { class: "about" }, el("b", { title: attachment.name }, attachment.name), status, again, bar),
    el("button", { type: "button", class: "round small", "aria-label": `Remove ${attachment.name}`, onclick: () => remove(attachment) }, icon("close")));
  const update = () => {
    const { state, progress, report, error, file } = attachment;
    item.dataset.state = state;
    bar.hidden = state !== "uploading";
    bar.value = progress;
    again.hidden = state !== "failed";
    status.textContent =
      state === "failed" ? error.message
      : state === "uploading" ? `${Math.round(progress * 100)} % of ${bytes(file.size)}`
      : report ? plural(report.tokens, "token") : bytes(file.size);
  };
  attachment.addEventListener("change", update);
  update();
  item.attachment = attachment;
  tray.append(item);
  tray.hidden = false;
}

/** Show it no longer. */
export function removeFromTray(attachment) {
  const item = [...tray.children].find((each) => each.attachment === attachment);
  item?.remove();
  tray.hidden = !tray.children.length;
}

/** A small view of the file as it is. */
export function thumbnail({ url, file }) {
  return file.type.startsWith("video/")
    ? el("video", { src: url, muted: true, preload: "metadata", class: "thumb", "aria-hidden": "true" })
    : el("img", { src: url, alt: "", class: "thumb" });
}
