// @ts-check
/** Boxes of a grounding answer, drawn on the picture in its original pixels, to look at and to save. */

import { el, link, save, svg } from "../page/dom.js";
import { pixels } from "../page/format.js";
import { t } from "../page/texts.js";
import { inPixels } from "./grounding.js";

const NUM_COLORS = 5;
/** Widths of a box's lines: seen on any picture, whatever its colors. */
const LINES = [["edge", 7], ["halo", 5.5], ["box", 3]];
const SAVED_COLORS = ["#d6006e", "#0086a8", "#6a3df0", "#2e7d00", "#b85c00"];

/** @typedef {{ label: string, left: number, top: number, right: number, bottom: number }} Box */

/**
 * @param {Box[]} found boxes as the model wrote them, from grounding.js.
 * @param {any[]} pictures attachments the boxes may lie on, with their reports; the last one is shown first.
 */
export function boxesView(found, pictures) {
  const view = el("figure", { class: "boxes" });
  const show = (/** @type {any} */ picture) => view.replaceChildren(...content(found, picture, pictures, show));
  show(pictures.at(-1));
  return view;
}

function content(/** @type {Box[]} */ found, /** @type {any} */ picture, /** @type {any[]} */ pictures, /** @type {(picture: any) => void} */ show) {
  const size = picture.report.source_size;
  const placed = found.map((box) => inPixels(box, size, picture.report.box_extent));
  const image = el("img", { src: picture.url, alt: t(found.length === 1 ? "withABox" : "withBoxes", { name: picture.name }), width: size.width, height: size.height });
  const tile = el("div", { class: "tile" }, image,
    svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, "aria-hidden": "true" }, ...placed.flatMap(rectangle)));
  return [
    tile,
    el("figcaption", {},
      pictures.length > 1 ? choice(picture, pictures, show) : el("span", {}, `${picture.name}, ${pixels(size)}`),
      picture.whole && link(t("saveWithBoxes"), () => saveDrawn(image, size, placed, picture.name)),
      el("ol", {}, ...placed.map(legend))),
  ];
}

function rectangle(/** @type {Box} */ { left, top, right, bottom }, /** @type {number} */ index) {
  const shape = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
  return LINES.map(([name]) => svg("rect", { ...shape, class: name, "data-color": index % NUM_COLORS }));
}

function legend(/** @type {Box} */ { label, left, top, right, bottom }, /** @type {number} */ index) {
  return el("li", { "data-color": index % NUM_COLORS }, el("b", {}, label || t("boxNumber", { n: index + 1 })), el("code", {}, `${left}, ${top} – ${right}, ${bottom} px`));
}

/** Which picture is meant, an answer does not say. */
function choice(/** @type {any} */ picture, /** @type {any[]} */ pictures, /** @type {(picture: any) => void} */ show) {
  const options = pictures.map((each, index) => el("option", { value: index, selected: each === picture }, each.name));
  return el("label", {}, t("onPicture"), el("select", { onchange: (/** @type {any} */ event) => show(pictures[event.target.value]) }, ...options));
}

/** The picture as a file, with its boxes and what they are called. */
async function saveDrawn(/** @type {HTMLImageElement} */ image, /** @type {{ width: number, height: number }} */ { width, height }, /** @type {Box[]} */ placed, /** @type {string} */ name) {
  const canvas = new OffscreenCanvas(width, height);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.drawImage(image, 0, 0, width, height);
  const scale = Math.max(width, height) / 600;
  const fontPx = Math.round(14 * Math.max(1, scale));
  pen.font = `600 ${fontPx}px Inter, sans-serif`;
  placed.forEach(({ label, left, top, right, bottom }, index) => {
    const color = SAVED_COLORS[index % NUM_COLORS];
    for (const [line, thick] of LINES) {
      pen.strokeStyle = line === "edge" ? "#000" : line === "halo" ? "#fff" : color;
      pen.lineWidth = Number(thick) * Math.max(1, scale);
      pen.strokeRect(left, top, right - left, bottom - top);
    }
    if (!label) return;
    const wide = pen.measureText(label).width + fontPx;
    const y = Math.max(0, top - fontPx * 1.5);
    pen.fillStyle = color;
    pen.fillRect(left, y, wide, fontPx * 1.5);
    pen.fillStyle = "#fff";
    pen.fillText(label, left + fontPx / 2, y + fontPx * 1.1);
  });
  save(`${name.replace(/\.\w+$/, "")}-boxes.png`, await canvas.convertToBlob({ type: "image/png" }));
}
