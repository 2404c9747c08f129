// @ts-check
/** A question as it is seen: what was sent along, the text, and where it failed, what can be done. */

import { el, icon, link } from "../page/dom.js";
import { t } from "../page/texts.js";
import { resultCards } from "../answer/tool_calls.js";
import { chooseAgain } from "../media/file_input.js";
import { opening } from "../media/thumbnail.js";
import { sentence } from "../server/errors.js";


/**
 * @param {import("./conversation.js").Turn} turn
 * @param {Record<string, (...given: any[]) => void>} actions
 */
export function questionView(turn, actions) {
  const { role, text, attachments, results, failed } = turn;
  const label = role === "tool" ? t("resultsTitle") : t("you");
  return el("li", { class: "question", "data-failed": Boolean(failed) },
    el("h2", { class: "unseen" }, label),
    attachments.length > 0 && el("ul", { class: "media", "aria-label": t("sentAlong") }, ...attachments.map(sent)),
    role === "tool" && el("div", { class: "given-back" }, ...resultCards(results)),
    text && el("p", {}, text),
    role === "user" && !failed && el("div", { class: "question-actions" },
      el("button", { type: "button", class: "round small", "aria-label": t("editQuestion"), title: t("editQuestion"), onclick: () => actions.edit(turn) }, icon("edit")),
      el("button", { type: "button", class: "round small", "aria-label": t("copyQuestion"), title: t("copyQuestion"), onclick: () => navigator.clipboard?.writeText(text) }, icon("copy"))),
    failed && failure(turn, actions));
}

function failure(/** @type {any} */ turn, /** @type {Record<string, (...given: any[]) => void>} */ actions) {
  const { failed, role } = turn;
  const mayPass = failed.stopped || failed.mayPass || failed.status === 0 || failed.status >= 500 || failed.code === "model_not_found";
  return el("div", { class: failed.stopped ? "problem mild" : "problem", role: "alert" },
    el("p", {}, failed.stopped ? t("stoppedBefore") : sentence(failed)),
    failed.param && sentence(failed) === failed.message && el("p", { class: "hint" }, t("inField"), el("code", {}, failed.param)),
    el("p", { class: "problem-actions" },
      mayPass && link(t("tryAgain"), () => actions.retry(turn), { class: "link only-last idle-only" }),
      role === "user" && link(t("editAndAsk"), () => actions.edit(turn)),
      link(t("remove"), () => actions.remove(turn))));
}

function sent(/** @type {import("../media/attachment.js").Attachment} */ attachment) {
  const item = el("li", { title: attachment.name });
  const draw = () => {
    const { name, leftOut, range } = attachment;
    const part = range.start !== null || range.end !== null;
    item.replaceChildren(opening(attachment), el("span", { class: "unseen" }, name),
      part ? el("span", { class: "hint" }, `${range.start ?? 0} – ${range.end ?? t("theEnd")} s`) : "",
      attachment.isLost ? gone(attachment) : leftOut ? el("span", { class: "hint" }, t("leftOut")) : "");
  };
  const looks = () => [attachment.url, attachment.state, attachment.leftOut].join(" ");
  let shown = looks();
  attachment.addEventListener("change", () => {
    if (looks() === shown) return; // a video would be loaded anew
    shown = looks();
    draw();
  });
  draw();
  return item;
}

function gone(/** @type {import("../media/attachment.js").Attachment} */ attachment) {
  if (attachment.leftOut) return el("span", { class: "hint" }, t("leftOut"));
  return el("span", { class: "gone" }, t("goneFromServer"), link(t("chooseAgain"), () => chooseAgain(attachment)), link(t("goOnWithout"), () => attachment.leaveOut()));
}
