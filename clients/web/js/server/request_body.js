// @ts-check
/** The body of a chat request, from what was said and set. Pure. */

import { withoutTokens } from "../answer/grounding.js";

/**
 * @param {string} model
 * @param {import("../conversation/conversation.js").Turn[]} turns in order; those that failed are left out.
 * @param {import("../panel/settings.js").Values} settings
 * @param {{ continuing?: boolean }} options continuing: go on with the last answer.
 */
export function chatBody(model, turns, { system, sampling, media, extra }, { continuing = false } = {}) {
  const messages = turns.flatMap((turn) => messagesOf(turn, media));
  if (system) messages.unshift({ role: "system", content: system });
  // Grounding answers mark their boxes by special tokens, which are left out unless asked for.
  return { model, messages, ...sampling, skip_special_tokens: false, ...(continuing && { continue_final_message: true }), ...extra };
}

/** The attachments of turns whose media the model gets, in the order of the request. */
export const mediaOf = (/** @type {any[]} */ turns) => turns.filter(({ failed }) => !failed).flatMap(({ attachments = [] }) => attachments.filter(isSent));

const isSent = (/** @type {any} */ attachment) => !attachment.leftOut;

function messagesOf(/** @type {any} */ turn, /** @type {any} */ limits) {
  if (turn.failed) return [];
  if (turn.role === "tool") return turn.results.map(({ id, content }) => ({ role: "tool", tool_call_id: id, content }));
  if (turn.role === "assistant") return [answerMessage(turn.answers[turn.chosen])];
  const media = turn.attachments.filter(isSent);
  const content = media.length ? [...media.map((each) => mediaPart(each, limits)), ...textPart(turn.text)] : turn.text;
  return [{ role: "user", content }];
}

function answerMessage(/** @type {any} */ { raw, calls = [] }) {
  const content = withoutTokens(raw);
  if (!calls.length) return { role: "assistant", content };
  return {
    role: "assistant",
    ...(content && { content }),
    tool_calls: calls.map(({ id, name, arguments: given }) => ({ id, type: "function", function: { name, arguments: given } })),
  };
}

/** One that is nowhere goes by its name, which no server knows. */
function mediaPart(/** @type {any} */ { name, source, modality, range }, /** @type {any} */ { max_pixels, fps, max_frames }) {
  const limits = modality === "video" ? { max_pixels, fps, max_frames, video_start: range.start, video_end: range.end } : { max_pixels };
  const given = Object.fromEntries(Object.entries(limits).filter(([, value]) => value != null));
  if (!source?.url) return { type: "file", file: { ...(source ?? { file_id: name }), ...given } };
  const type = modality === "video" ? "video_url" : "image_url";
  return { type, [type]: { ...source, ...given } };
}

const textPart = (/** @type {string} */ text) => (text ? [{ type: "text", text }] : []);
