// @ts-check
/**
 * Boxes in answers. The model writes
 * `<|object_ref_start|>red ring<|object_ref_end|><|box_start|>(360,20),(640,120)<|box_end|>`
 * with corners in thousandths of the picture's width and height.
 */

const BOX = /(?:<\|object_ref_start\|>([^<]*)<\|object_ref_end\|>\s*)?<\|box_start\|>\s*\((\d+)\s*,\s*(\d+)\)\s*,\s*\((\d+)\s*,\s*(\d+)\)\s*<\|box_end\|>/g;
const UNFINISHED = /<\|box_start\|>[^<]*$/;
const TOKEN = /<\|(?:object_ref|box|quad)_(?:start|end)\|>/g;

/** Every box of a text, in order: `{ label, left, top, right, bottom }`, 0 to 1000. One phrase may have several boxes. */
export function boxes(/** @type {string} */ text) {
  let label = "";
  return Array.from(text.matchAll(BOX), ([, phrase, ...corners]) => {
    label = phrase?.trim() ?? label;
    const [left, top, right, bottom] = corners.map((value) => Math.min(1000, Number(value)));
    return { label, left, top, right, bottom };
  });
}

/** A box in the pixels of a picture of that size. */
export function inPixels(/** @type {any} */ box, /** @type {{ width: number, height: number }} */ { width, height }) {
  const x = (/** @type {number} */ value) => Math.round((value * width) / 1000);
  const y = (/** @type {number} */ value) => Math.round((value * height) / 1000);
  return { ...box, left: x(box.left), top: y(box.top), right: x(box.right), bottom: y(box.bottom) };
}

/** The text as people read it: phrases stay, boxes and tokens go, also one that is still being written. */
export function readable(/** @type {string} */ text) {
  return text
    .replace(BOX, (_, phrase) => phrase ?? "")
    .replace(UNFINISHED, "")
    .replace(TOKEN, "");
}

/** The text as a client gets it that asks for no special tokens: what is sent back in the next turn. */
export const withoutTokens = (/** @type {string} */ text) => text.replace(TOKEN, "");
