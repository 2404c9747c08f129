// @ts-check
/** A conversation as data: its turns, and what is kept of them. */

import { Attachment } from "../media/attachment.js";

/**
 * One answer. State: "writing", "complete", "stopped" by the person, "broken" off in the middle, or "failed".
 * @typedef {{ raw: string, calls: import("../server/chat.js").Call[], state: string, error: any, end: import("../server/chat.js").End | null, model: string, settings: import("../panel/settings.js").Values }} Answer
 */
/**
 * A question (`attachments`, `text`), what functions gave back (`results`), or answers to the turn before, of which `chosen` counts.
 * A turn that `failed` stays in sight and is not sent along.
 * @typedef {{ role: "user" | "tool" | "assistant", text: string, attachments: Attachment[], results: { id: string, name: string, content: string }[], answers: Answer[], chosen: number, failed: any }} Turn
 */

const PLAIN = { text: "", results: [], answers: [], chosen: 0, failed: null };
const MAX_TITLE_CHARS = 60;
const FORMAT = "tessera-conversation/1";

/** @returns {Turn} */
export const question = (/** @type {string} */ text, /** @type {Attachment[]} */ attachments) => ({ ...PLAIN, role: "user", text, attachments });
/** @returns {Turn} */
export const resultsTurn = (/** @type {Turn["results"]} */ results) => ({ ...PLAIN, role: "tool", attachments: [], results });
/** @returns {Turn} */
export const answerTurn = (/** @type {Answer} */ answer) => ({ ...PLAIN, role: "assistant", attachments: [], answers: [answer] });
/** @returns {Answer} */
export const newAnswer = (/** @type {string} */ model, /** @type {import("../panel/settings.js").Values} */ settings) => ({ raw: "", calls: [], state: "writing", error: null, end: null, model, settings });

/** An id that no other conversation has. */
export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** What a conversation is called until somebody names it: its first question. */
export function titleOf(/** @type {Turn[]} */ turns) {
  const first = turns.find(({ role }) => role === "user");
  const text = first?.text || first?.attachments[0]?.name || "";
  return text.length > MAX_TITLE_CHARS ? `${text.slice(0, MAX_TITLE_CHARS - 1)}…` : text;
}

/** Turns as plain values: text, settings, small previews and names of uploads; never media. */
export function keptTurns(/** @type {Turn[]} */ turns) {
  return turns.map(({ role, text, attachments, results, answers, chosen, failed }) => ({
    role, text, results, chosen,
    failed: failed && { message: failed.message, status: failed.status, code: failed.code ?? null },
    attachments: attachments.map((each) => each.kept),
    answers: answers.map((answer) => ({ ...answer, error: answer.error && { message: answer.error.message }, state: answer.state === "writing" ? "broken" : answer.state })),
  }));
}

/** Turns that were kept, alive again. An answer that was being written has broken off. */
export function revivedTurns(/** @type {any[]} */ kept) {
  return kept.map((turn) => ({ ...PLAIN, ...turn, attachments: turn.attachments.map(Attachment.revived) }));
}

/** A conversation as a file. */
export const exported = (/** @type {any} */ record) => new Blob([JSON.stringify({ format: FORMAT, ...record }, null, 1)], { type: "application/json" });

/**
 * The conversation in a file, under an id of its own.
 * @returns {any} null where it is none
 */
export function imported(/** @type {string} */ text) {
  try {
    const { format, title, turns, createdMs } = JSON.parse(text);
    if (format !== FORMAT || !Array.isArray(turns)) return null;
    const sound = turns.map(soundTurn);
    return { id: newId(), title: String(title ?? ""), named: true, createdMs: Number(createdMs) || Date.now(), changedMs: Date.now(), turns: sound, draft: null };
  } catch {
    return null;
  }
}

/** A turn of a file, held to what the page relies on; raises where it is none. */
function soundTurn(/** @type {any} */ turn) {
  if (!["user", "tool", "assistant"].includes(turn.role)) throw new Error("unknown role");
  const list = (/** @type {any} */ value) => (Array.isArray(value) ? value : []);
  const answers = list(turn.answers).map((each) => ({
    ...newAnswer(String(each.model ?? ""), { system: "", sampling: {}, media: {}, extra: {}, fields: {}, ...each.settings }),
    raw: String(each.raw ?? ""), calls: list(each.calls), state: "complete", end: each.end?.usage ? each.end : null,
  }));
  if (turn.role === "assistant" && !answers.length) throw new Error("no answer");
  const attachments = list(turn.attachments).map((each) => ({
    name: String(each.name ?? ""), type: String(each.type ?? ""), source: soundSource(each.source), range: { start: null, end: null, ...each.range },
    preview: /^[\w+/=]*$/.test(each.preview ?? "-") ? each.preview : null, report: each.report?.source_size ? each.report : null, leftOut: !!each.leftOut,
  }));
  return { ...PLAIN, role: turn.role, text: String(turn.text ?? ""), results: list(turn.results), attachments, answers, chosen: answers[turn.chosen] ? turn.chosen : 0 };
}

const soundSource = (/** @type {any} */ source) =>
  typeof source?.file_id === "string" && /^[\w-]+$/.test(source.file_id) ? { file_id: source.file_id } : /^https?:/.test(source?.url ?? "") ? { url: String(source.url) } : null;
