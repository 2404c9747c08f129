/** Boxes of a grounding answer, drawn on the picture in its original pixels. */

import { el, svg } from "../page/dom.js";
import { pixels } from "../page/format.js";
import { inPixels } from "./grounding.js";

const NUM_COLORS = 5;

/**
 * @param found boxes in thousandths, from grounding.js.
 * @param pictures attachments the boxes may lie on, with their reports; the last one is shown first.
 */
export function boxesView(found, pictures) {
  const view = el("figure", { class: "boxes" });
  const show = (picture) => view.replaceChildren(...content(found, picture, pictures, show));
  show(pictures.at(-1));
  return view;
}

function content(found, picture, pictures, show) {
  const size = picture.report.source_size;
  const placed = found.map((box) => inPixels(box, size));
  const tile = el("div", { class: "tile" },
    el("img", { src: picture.url, alt: `${picture.name}, with ${found.length === 1 ? "a box" : "boxes"}`, width: size.width, height: size.height }),
    svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, "aria-hidden": "true" }, ...placed.flatMap(rectangle)));
  return [
    tile,
    el("figcaption", {},
      pictures.length > 1 ? choice(picture, pictures, show) : el("span", {}, `${picture.name}, ${pixels(size)}`),
      el("ol", {}, ...placed.map(legend))),
  ];
}

function rectangle({ left, top, right, bottom }, index) {
  const shape = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
  return [svg("rect", { ...shape, class: "halo" }), svg("rect", { ...shape, class: "box", "data-color": index % NUM_COLORS })];
}

function legend({ label, left, top, right, bottom }, index) {
  return el("li", { "data-color": index % NUM_COLORS }, el("b", {}, label || `box ${index + 1}`), el("code", {}, `${left}, ${top} – ${right}, ${bottom} px`));
}

/** Which picture is meant, an answer does not say. */
function choice(picture, pictures, show) {
  const options = pictures.map((each, index) => el("option", { value: index, selected: each === picture }, each.name));
  return el("label", {}, "On ", el("select", { onchange: (event) => show(pictures[event.target.value]) }, ...options));
}
