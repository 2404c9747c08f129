// @ts-check
/** Errors in people's words: what is the matter, and what they can do about it. */

import { bytes, count } from "../page/format.js";
import { t } from "../page/texts.js";

const TOO_LARGE = /larger than (\d+) bytes/;
const TOO_LONG = /context length is (\d+) tokens, and the prompt is too long: (\d+)/;
const UNREADABLE = /^(?:empty_(?:image|video)_file|(?:image|video)_parse_error|invalid_(?:image|video)_(?:format|mode)|unsupported_file)$/;
const GONE = new Set(["file_not_found", "image_file_not_found", "video_file_not_found"]);

/** The sentence to show for an error. */
export function sentence(/** @type {any} */ error, /** @type {{ file?: File | null, modality?: string }} */ { file = null, modality = "image" } = {}) {
  if (error.status === 401) return t("keyRefused");
  if (error.code === "model_not_found") return t("modelGone");
  if (GONE.has(error.code)) return t("goneError");
  const [, limit] = TOO_LARGE.exec(error.message) ?? [];
  if (limit && file) return tooLarge(file.size, Number(limit), modality);
  const [, context, prompt] = TOO_LONG.exec(error.message) ?? [];
  if (Number(prompt) > Number(context)) return t("tooManyTokens", { n: count(Number(prompt) - Number(context)) });
  if (file && UNREADABLE.test(error.code ?? "")) return t(/^(?:image|video)\//.test(file.type) ? "damaged" : "neither");
  return error.message.replace(/\b\d{7,}(?= bytes)/g, (/** @type {string} */ number) => bytes(Number(number))).replace(/(?<=\d [KM]B) bytes/g, "");
}

/** That a file is over a limit. */
export const tooLarge = (/** @type {number} */ size, /** @type {number} */ limit, /** @type {string} */ modality) =>
  t(modality === "video" ? "videoTooLarge" : "pictureTooLarge", { size: bytes(size), limit: bytes(limit) });

/** The upload that a server no longer has: the place of its part among the messages, or null. */
export function goneFile(/** @type {any} */ { code, param }) {
  const at = /^messages\[(\d+)\]\.content\[(\d+)\]/.exec(param ?? "");
  return at && GONE.has(code) ? { message: Number(at[1]), part: Number(at[2]) } : null;
}
