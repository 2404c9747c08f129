// @ts-check
/** The attachments that go with the next question, above the text. */

import { byId, el, icon, link } from "../page/dom.js";
import { bytes, tokens } from "../page/format.js";
import { t } from "../page/texts.js";
import { sentence } from "../server/errors.js";
import { chooseAgain } from "./file_input.js";
import { thumbnail } from "./thumbnail.js";

const tray = byId("tray");

/**
 * Show one more attachment.
 * @param {import("./attachment.js").Attachment} attachment
 * @param {(attachment: import("./attachment.js").Attachment) => void} remove
 */
export function addToTray(attachment, remove) {
  const status = el("span", { class: "status" });
  const bar = el("progress", { max: 1, "aria-label": t("uploadOf", { name: attachment.name }) });
  const again = link(t("tryAgain"), () => attachment.send());
  const choose = link(t("chooseAgain"), () => chooseAgain(attachment));
  const range = rangeFields(attachment);
  const picture = el("span", { class: "thumb-place" });
  const item = el("li", { class: "chip" },
    picture,
    el("div", { class: "about" }, el("b", { title: attachment.name }, attachment.name), status, again, choose, bar, range),
    el("button", { type: "button", class: "round small", "aria-label": t("removeNamed", { name: attachment.name }), onclick: () => remove(attachment) }, icon("close")));
  let shown = "";
  const update = () => {
    const { state, progress } = attachment;
    item.dataset.state = state;
    bar.hidden = state !== "uploading";
    bar.value = progress;
    again.hidden = !attachment.mayPass;
    choose.hidden = state !== "gone";
    range.hidden = attachment.modality !== "video" || state === "failed";
    status.textContent = statusOf(attachment);
    status.title = attachment.error?.message ?? "";
    if (shown !== `${attachment.url} ${state === "failed"}`) picture.replaceChildren(thumbnail(attachment));
    shown = `${attachment.url} ${state === "failed"}`;
  };
  attachment.addEventListener("change", update);
  update();
  item.attachment = attachment;
  tray.append(item);
  tray.hidden = false;
}

/** Show it no longer. */
export function removeFromTray(/** @type {any} */ attachment) {
  const item = [...tray.children].find((each) => each.attachment === attachment);
  item?.remove();
  tray.hidden = !tray.children.length;
}

function statusOf(/** @type {import("./attachment.js").Attachment} */ attachment) {
  const { state, progress, report, error, file, source } = attachment;
  if (state === "failed") return sentence(error, attachment);
  if (state === "gone") return t("goneFromServer");
  if (state === "uploading") return t("uploadedShare", { share: Math.round(progress * 100), size: bytes(file?.size ?? 0) });
  const known = report ? tokens(report.tokens) : file ? bytes(file.size) : source?.url ? t("fetchedByServer") : "";
  return source?.file_data ? `${known}${t("sentWithRequest")}` : known;
}

/** From and to, in seconds, of a video. */
function rangeFields(/** @type {import("./attachment.js").Attachment} */ attachment) {
  const field = (/** @type {"start" | "end"} */ side, /** @type {string} */ label) =>
    el("input", { type: "number", min: 0, step: "any", inputmode: "decimal", "aria-label": label, title: label, value: attachment.range[side],
      placeholder: side === "start" ? "0" : t("theEnd"),
      onchange: ({ target }) => attachment.cut({ ...attachment.range, [side]: target.value === "" ? null : Number(target.value) }) });
  return el("span", { class: "range" }, t("seconds"), field("start", t("videoFrom")), "–", field("end", t("videoTo")));
}
