// @ts-check
/** Keeping the conversation that is open, and bringing it back after a reload. */

import { Attachment } from "../media/attachment.js";
import { toast } from "../page/toast.js";
import { t } from "../page/texts.js";
import { keptTurns, newId, revivedTurns, titleOf } from "./conversation.js";
import { load, put, remove } from "./store.js";

const OPEN = "tessera-conversation";
const DRAFT = "tessera-draft";
const SOON_MS = 400;

/** Keeps one conversation at a time, soon after each change, and at once when the page is left. */
export class Archive {
  #timer = 0;
  #told = false;
  /** @type {() => any} */
  #due = () => null;

  constructor() {
    for (const [target, name] of [[window, "pagehide"], [document, "visibilitychange"]]) {
      /** @type {EventTarget} */ (target).addEventListener(/** @type {string} */ (name), () => this.flush());
    }
  }

  /**
   * Keep what `record` gives, soon.
   * @param {() => any} record
   */
  soon(record) {
    this.#due = record;
    this.#timer ||= setTimeout(() => this.flush(), SOON_MS);
  }

  /** Keep what is due. */
  async flush() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const record = this.#due();
    this.#due = () => null;
    if (record) await this.now(record);
  }

  /** Keep a record without waiting; one with nothing in it is not kept. */
  async now(/** @type {any} */ record) {
    try {
      if (record.turns.length || record.draft.text || record.draft.attachments.length) await put(record);
      else await remove(record.id);
    } catch {
      if (!this.#told) toast(t("notKept"));
      this.#told = true;
    }
  }
}

/** A conversation and the draft and settings beside it, as they are kept. */
export function recordOf(/** @type {import("./session.js").Conversation} */ { id, title, named, createdMs, turns }, /** @type {{ text: string, attachments: Attachment[] }} */ draft, /** @type {{ model: string | null, fields: any }} */ { model, fields }) {
  return {
    id, named, createdMs, changedMs: Date.now(), model, fields,
    title: named ? title : titleOf(turns) || draft.text.slice(0, 60),
    turns: keptTurns(turns),
    draft: { text: draft.text, attachments: draft.attachments.map((each) => each.kept) },
  };
}

/** What was kept, alive again: `{ conversation, draft, model, fields }`. */
export function revived(/** @type {any} */ { id, title, named, createdMs, turns, draft, model, fields }) {
  return {
    conversation: { id, title, named, createdMs, turns: revivedTurns(turns) },
    draft: { text: draft?.text ?? "", attachments: (draft?.attachments ?? []).map(Attachment.revived) },
    model: model ?? null,
    fields: fields ?? null,
  };
}

/** Remember which conversation is open in this tab. */
export function markOpen(/** @type {string} */ id) {
  if (id === held) return;
  held = id;
  sessionStorage.setItem(OPEN, id);
  hold(id);
}

/** What was being written when the page was left: the one thing that may be younger than what is kept. */
export function rememberDraft(/** @type {string} */ id, /** @type {string} */ text) {
  sessionStorage.setItem(DRAFT, JSON.stringify({ id, text }));
}

/** That text, where it belongs to this conversation; null where not. */
export function rememberedDraft(/** @type {string} */ id) {
  const { id: of, text } = JSON.parse(sessionStorage.getItem(DRAFT) ?? "{}");
  return of === id ? String(text) : null;
}

/**
 * The record that was open in this tab before it was loaded anew, or null. A copied tab gets a copy of it, so that
 * the two do not write over each other.
 */
export async function lastOpen() {
  const id = sessionStorage.getItem(OPEN);
  const record = id && (await load(id));
  if (!record) return null;
  return (await isHeld(record.id)) ? { ...record, id: newId() } : record;
}

let held = "";
let release = () => {};
function hold(/** @type {string} */ id) {
  release();
  navigator.locks?.request(`tessera-${id}`, { ifAvailable: true }, () => new Promise((resolve) => (release = () => resolve(null))));
}

async function isHeld(/** @type {string} */ id) {
  const locks = await navigator.locks?.query();
  return locks?.held?.some(({ name }) => name === `tessera-${id}`) ?? false;
}
