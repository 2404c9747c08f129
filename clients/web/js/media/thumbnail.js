// @ts-check
/** A small view of an attachment, and a large one when it is asked for. */

import { el, icon } from "../page/dom.js";
import { t } from "../page/texts.js";
import { zoom } from "../page/zoom.js";

/** A small view; a sign where there is nothing to see. */
export function thumbnail(/** @type {import("./attachment.js").Attachment} */ attachment) {
  const { url, whole, type, state, range } = attachment;
  if (!url || state === "failed") return sign(attachment);
  if (whole && type.startsWith("video/")) {
    return el("video", { src: `${url}#t=${Math.max(range.start ?? 0, 0.001)}`, muted: true, playsinline: true, preload: "metadata", class: "thumb", "aria-hidden": "true" });
  }
  const picture = el("img", { src: url, alt: "", class: "thumb" });
  picture.addEventListener("error", () => picture.replaceWith(sign(attachment)));
  return picture;
}

/** A view that opens a large one. */
export function opening(/** @type {import("./attachment.js").Attachment} */ attachment) {
  const { name, url, whole, type } = attachment;
  const small = thumbnail(attachment);
  if (!url) return small;
  const moves = whole && type.startsWith("video/");
  const open = () => {
    const size = small.videoWidth ? { width: small.videoWidth, height: small.videoHeight } : { width: small.naturalWidth || 4, height: small.naturalHeight || 3 };
    const large = moves ? el("video", { src: url, controls: true, autoplay: true, loop: true, muted: true, "aria-label": name }) : el("img", { src: url, alt: name });
    zoom(name, large, size);
  };
  return el("button", { type: "button", class: "media-open", "aria-label": t(moves ? "playNamed" : "enlargeNamed", { name }), title: name, onclick: open },
    small, moves && el("span", { class: "play", "aria-hidden": "true" }, icon("play")));
}

function sign({ modality, source, state }) {
  return el("span", { class: "thumb sign", "aria-hidden": "true" }, icon(state === "failed" ? "broken" : source?.url ? "link" : modality === "video" ? "play" : "picture"));
}
