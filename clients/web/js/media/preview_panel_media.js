// @ts-check
/** A picture and a video as the model sees them: resized, cut into tokens, sampled. */

import { el, svg } from "../page/dom.js";
import { clock, count, pixels } from "../page/format.js";
import { counted, t } from "../page/texts.js";
import { framesAt } from "./frames.js";
import { zoom } from "../page/zoom.js";

/** Pixels of a token's side, after resizing. */
const TOKEN_PX = 28;
/** More frames than this are not shown, only a selection of them. */
const MAX_SHOWN_FRAMES = 48;
/** Width in which a frame of the strip is drawn, for screens of two pixels to one. */
const FRAME_PX = 288;
/** Widths in which the panel shows a picture and a frame. */
const SHOWN_PX = { picture: 360, frame: 144 };

/** What the model sees of an attachment whose report is there. */
export function seenView(/** @type {any} */ attachment) {
  return attachment.modality === "video" ? videoView(attachment) : pictureView(attachment);
}

function pictureView(/** @type {any} */ attachment) {
  const { source_size, size, grid, tokens } = attachment.report;
  const [, rows, columns] = grid.map((patches) => patches / 2);
  const open = () => zoom(attachment.name, pictureTile(attachment, size), size);
  return el("figure", { class: "seen" },
    el("button", { type: "button", class: "bare", onclick: open, "aria-label": t("enlargeNamed", { name: attachment.name }) }, pictureTile(attachment, size)),
    caption(attachment, [
      [t("resized"), `${pixels(source_size)} → ${pixels(size)}`],
      [t("tokensTerm"), `${columns} × ${rows} = ${count(tokens)}`],
    ]));
}

function videoView(/** @type {any} */ attachment) {
  const { source_size, size, grid, tokens, frames, timestamps, fps } = attachment.report;
  const [slices, rows, columns] = [grid[0], grid[1] / 2, grid[2] / 2];
  const step = Math.ceil(slices / (MAX_SHOWN_FRAMES / 2));
  const shown = Array.from({ length: Math.ceil(slices / step) }, (_, index) => index * step);
  const tiles = [];
  const strip = el("ol", { class: "strip", tabindex: 0, "aria-label": t("framesOf", { name: attachment.name }) },
    ...shown.map((slice) =>
      el("li", { class: "slice" }, ...timestamps.slice(2 * slice, 2 * slice + 2).map((time) => {
        const tile = frameTile(size);
        tiles.push([tile.firstElementChild, time]);
        return el("figure", {}, tile, el("figcaption", {}, clock(time)));
      }))));
  draw(attachment, tiles, strip);
  return el("figure", { class: "seen" }, strip,
    caption(attachment, [
      [t("resized"), `${pixels(source_size)} → ${pixels(size)}`],
      [t("sampled"), counted("frame", "frames", frames, count(frames)) + (fps === null ? "" : t("perSecond", { n: Number(fps.toFixed(2)) }))],
      [t("tokensTerm"), `${counted("slice", "slices", slices, count(slices))} ${columns} × ${rows} = ${count(tokens)}`],
      step > 1 && [t("shown"), t("oneSliceIn", { n: step })],
    ]));
}

/** The picture with as many pixels as the model gets, under the grid of tokens; transparent parts are white, as for the model. */
function pictureTile(/** @type {any} */ { url, name }, /** @type {any} */ size) {
  const canvas = el("canvas", { ...size, role: "img", "aria-label": t("gridOf", { name }) });
  const tile = el("div", { class: "tile" }, canvas, gridOver(size, SHOWN_PX.picture));
  if (url) {
    const picture = el("img", { src: url });
    picture.addEventListener("load", () => drawn(canvas, picture));
  } else {
    tile.classList.add("unseen-here"); // the server has fetched it, the page has not
  }
  return tile;
}

function frameTile(size) {
  const width = Math.min(FRAME_PX, size.width);
  return el("div", { class: "tile" },
    el("canvas", { width, height: Math.round((width * size.height) / size.width) }), gridOver(size, SHOWN_PX.frame));
}

/** Lines between tokens, in the pixels of the resized picture; finer ones where tokens are shown small. */
function gridOver({ width, height }, shownPx) {
  const tokenPx = (TOKEN_PX * shownPx) / width;
  const lines = [];
  for (let x = TOKEN_PX; x < width; x += TOKEN_PX) lines.push(`M${x} 0V${height}`);
  for (let y = TOKEN_PX; y < height; y += TOKEN_PX) lines.push(`M0 ${y}H${width}`);
  const d = lines.join("");
  const density = tokenPx > 20 ? "coarse" : tokenPx > 7 ? "fine" : "finest";
  return svg("svg", { class: "grid", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "data-density": density, "aria-hidden": "true" },
    svg("path", { d, class: "under" }), svg("path", { d, class: "over" }));
}

async function draw(attachment, tiles, strip) {
  strip.setAttribute("aria-busy", "true");
  try {
    let index = 0;
    if (!attachment.whole) throw new Error("only a preview is here");
    for await (const frame of framesAt(attachment, tiles.map(([, time]) => time))) {
      const [canvas] = tiles[index++];
      drawn(canvas, frame);
    }
  } catch {
    strip.after(el("p", { class: "hint" }, t(attachment.whole ? "cannotShowVideo" : "videoNotHere")));
  } finally {
    strip.setAttribute("aria-busy", "false");
  }
}

function drawn(canvas, source) {
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
}

function caption({ name, report }, facts) {
  return el("figcaption", {},
    el("b", {}, name),
    el("dl", {}, ...facts.filter(Boolean).map(([term, fact]) => el("div", {}, el("dt", {}, term), el("dd", {}, fact)))),
    ...report.notes.map((note) => el("p", { class: "hint" }, note)));
}
