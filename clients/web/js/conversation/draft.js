// @ts-check
/** The next question: its text, what goes with it, and why it cannot be sent yet. */

import { announce, byId, link } from "../page/dom.js";
import { count, tokens } from "../page/format.js";
import { t } from "../page/texts.js";
import { addToTray, removeFromTray } from "../media/attachment_tray.js";
import { Attachment } from "../media/attachment.js";
import { watchLinks } from "../media/link_input.js";
import { mediaOf } from "../server/request_body.js";

const field = byId("question");
const cost = byId("cost");

/** Dispatches "change", with `{ typing }`, when the text or the attachments have changed. */
export class Draft extends EventTarget {
  /** @type {Attachment[]} */
  attachments = [];
  #updateLinks;

  /** @param {() => Record<string, number>} limits of the server, in bytes */
  constructor(limits) {
    super();
    this.limits = limits;
    field.addEventListener("input", () => this.#changed(true));
    this.#updateLinks = watchLinks(field, (url) => this.add(Attachment.ofAddress(url)));
  }

  get text() {
    return field.value.trim();
  }

  get isEmpty() {
    return !this.text && !this.attachments.length;
  }

  /** Take files along. */
  take(/** @type {File[]} */ files) {
    for (const file of files) this.add(Attachment.ofFile(file, this.limits()));
    field.focus();
  }

  /** Take one more attachment along. */
  add(/** @type {Attachment} */ attachment) {
    this.attachments.push(attachment);
    addToTray(attachment, (each) => this.#remove(each));
    let told = attachment.asked;
    attachment.addEventListener("change", () => {
      if (!this.attachments.includes(attachment)) return;
      this.#changed(attachment.asked === told ? null : false);
      told = attachment.asked;
    });
    this.#changed(false);
  }

  /** What it holds, taken out of it. */
  empty() {
    const { text, attachments } = this;
    this.put({ text: "", attachments: [] });
    return { text, attachments };
  }

  /** Replace what it holds. */
  put(/** @type {{ text: string, attachments: Attachment[] }} */ { text, attachments }) {
    this.attachments.forEach(removeFromTray);
    this.attachments = [];
    field.value = text;
    this.#updateLinks();
    for (const attachment of attachments) this.add(attachment);
    this.#changed(false);
  }

  #remove(/** @type {Attachment} */ attachment) {
    this.attachments = this.attachments.filter((each) => each !== attachment);
    removeFromTray(attachment);
    attachment.discard();
    announce(t("removed", { name: attachment.name }));
    field.focus();
    this.#changed(false);
  }

  /** `typing`: null where only what is shown has changed, not what would be asked. */
  #changed(/** @type {boolean | null} */ typing) {
    this.dispatchEvent(new CustomEvent("change", { detail: { typing, same: typing === null } }));
  }
}

/**
 * Why a question cannot be sent now; `waits` where it can be given and is sent once the server is back.
 * @param {{ draft: Draft, turns: import("./conversation.js").Turn[], server: import("../server/state.js").Server, told: any }} now
 * @returns {{ text: string, waits?: boolean, bad?: boolean, over?: boolean } | null}
 */
export function obstacle({ draft, turns, server, told }) {
  const failed = draft.attachments.find(({ state }) => state === "failed");
  const missing = missingMedia([...turns, draft]);
  if (server.state === "locked") return { text: t("needsKey") };
  if (failed) return { text: t("removeFailed", { name: failed.name }), bad: true };
  if (missing?.bad) return missing;
  if (hasOpenCalls(turns)) return { text: t("resultsFirst") };
  if (missing) return missing;
  if (draft.isEmpty) return { text: t("typeSomething") };
  if (server.state !== "ready") return { text: t(server.state === "unreachable" ? "waitsForServer" : server.state === "failed" ? "modelFailed" : "waitsForModel"), waits: server.state !== "failed" };
  const over = told ? told.prompt_tokens - told.max_model_len + 1 : 0;
  if (over > 0) return { text: t("tooManyTokens", { n: count(over) }), bad: true, over: true };
  return null;
}

/**
 * Why turns cannot be sent as they are: some of their media are nowhere any more, or on their way.
 * @param {any[]} turns anything with attachments
 */
export function missingMedia(turns) {
  const media = mediaOf(turns);
  const lost = media.find(({ isLost }) => isLost);
  if (lost) return { text: t("goneReason", { name: lost.name }), bad: true };
  const uploading = media.filter(({ state }) => state === "uploading");
  const share = uploading.reduce((sum, { progress }) => sum + progress, 0) / uploading.length;
  return uploading.length ? { text: t("uploading", { share: Math.round(100 * share) }) } : null;
}

/** Whether the model waits for what its functions give back. */
export function hasOpenCalls(/** @type {import("./conversation.js").Turn[]} */ turns) {
  const last = turns.at(-1);
  return Boolean(last?.answers[last.chosen]?.calls.length);
}

/**
 * Say it where the count of tokens stands.
 * @param {ReturnType<typeof obstacle>} reason
 * @param {any} told of the prompt, where nothing is in the way
 * @param {{ fit: (() => void) | null, pixels: number | null }} mend makes a prompt that is too long fit
 */
export function showCost(reason, told, { fit, pixels }) {
  cost.classList.toggle("bad", reason?.bad ?? false);
  const text = reason ? reason.text : told ? tokens(told.prompt_tokens) : "";
  if (cost.firstChild?.textContent !== text || cost.childElementCount) cost.replaceChildren(text);
  if (reason?.over && fit && pixels) cost.append(" ", link(t("lowerPixels", { n: count(pixels) }), fit));
}
