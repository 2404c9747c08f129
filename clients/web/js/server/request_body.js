/** The body of a chat request, from what was said and set. Pure. */

/**
 * @param turns `{ role, text, attachments }` in order; an assistant's turn has no attachments.
 * @param settings `{ system, sampling, media }`, see settings.js.
 */
export function chatBody(model, turns, { system, sampling, media }) {
  const messages = turns.map(({ role, text, attachments = [] }) => ({
    role,
    content: attachments.length ? [...attachments.map((each) => mediaPart(each, media)), ...textPart(text)] : text,
  }));
  if (system) messages.unshift({ role: "system", content: system });
  // Grounding answers mark their boxes by special tokens, which are left out unless asked for.
  return { model, messages, ...sampling, skip_special_tokens: false };
}

function mediaPart({ id, modality }, { max_pixels, fps, max_frames }) {
  const limits = modality === "video" ? { max_pixels, fps, max_frames } : { max_pixels };
  const given = Object.entries(limits).filter(([, value]) => value !== undefined);
  return { type: "file", file: { file_id: id, ...Object.fromEntries(given) } };
}

const textPart = (text) => (text ? [{ type: "text", text }] : []);
