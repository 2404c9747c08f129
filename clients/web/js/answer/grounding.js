// @ts-check
/**
 * Boxes in answers. Qwen2-VL writes
 * `<|object_ref_start|>red ring<|object_ref_end|><|box_start|>(360,20),(640,120)<|box_end|>`
 * with corners in thousandths of the picture's width and height, Qwen-VL the same between `<ref>` and `<box>`, and
 * Qwen2.5-VL `{"bbox_2d": [36, 2, 64, 12], "label": "red ring"}` in the pixels it sees.
 */

const BOX = /(?:(?:<\|object_ref_start\|>|<ref>)([^<]*)(?:<\|object_ref_end\|>|<\/ref>)\s*)?(?:<\|box_start\|>|<box>)\s*\((\d+)\s*,\s*(\d+)\)\s*,\s*\((\d+)\s*,\s*(\d+)\)\s*(?:<\|box_end\|>|<\/box>)/g;
const UNFINISHED = /(?:<\|box_start\|>|<box>)[^<]*$/;
const TOKEN = /<\|(?:object_ref|box|quad)_(?:start|end)\|>/g;
const TAG = /<\/?(?:ref|box|quad)>/g;
const OBJECT = /\{[^{}]*"bbox_2d"[^{}]*\}/g;
const THOUSANDTHS = { width: 1000, height: 1000 };

/** Every box of a text, in order: `{ label, left, top, right, bottom }`, as written. One phrase may have several boxes. */
export function boxes(/** @type {string} */ text) {
  let label = "";
  const written = Array.from(text.matchAll(BOX), ([, phrase, ...corners]) => {
    label = phrase?.trim() ?? label;
    const [left, top, right, bottom] = corners.map(Number);
    return { label, left, top, right, bottom };
  });
  return written.length ? written : Array.from(text.matchAll(OBJECT), ([json]) => boxOf(json)).filter((box) => box !== null);
}

/** The box of a JSON object; null where it has none. */
function boxOf(/** @type {string} */ json) {
  try {
    const { bbox_2d: corners, label } = JSON.parse(json);
    if (!Array.isArray(corners) || corners.length !== 4 || !corners.every(Number.isFinite)) return null;
    const [left, top, right, bottom] = corners;
    return { label: typeof label === "string" ? label : "", left, top, right, bottom };
  } catch {
    return null;
  }
}

/**
 * A box in the pixels of a picture.
 * @param {any} box as written
 * @param {{ width: number, height: number }} size of the picture
 * @param {{ width: number, height: number }} [extent] what the corners count to, as the server reports it
 */
export function inPixels(box, { width, height }, extent = THOUSANDTHS) {
  const x = (/** @type {number} */ value) => Math.round((Math.min(Math.max(value, 0), extent.width) * width) / extent.width);
  const y = (/** @type {number} */ value) => Math.round((Math.min(Math.max(value, 0), extent.height) * height) / extent.height);
  return { ...box, left: x(box.left), top: y(box.top), right: x(box.right), bottom: y(box.bottom) };
}

/** The text as people read it: phrases stay, boxes and tokens go, also one that is still being written. */
export function readable(/** @type {string} */ text) {
  return text
    .replace(BOX, (_, phrase) => phrase ?? "")
    .replace(UNFINISHED, "")
    .replace(TOKEN, "")
    .replace(TAG, "");
}

/** The text as a client gets it that asks for no special tokens: what is sent back in the next turn. */
export const withoutTokens = (/** @type {string} */ text) => text.replace(TOKEN, "");
