// @ts-check
/** Something to begin with: four questions about pictures made here and a short video, in the world the bundled model knows. */

const SIZE = { width: 448, height: 336 };
const PAPER = "#fcfcfc";
/** @type {[string, (pen: OffscreenCanvasRenderingContext2D) => void][]} */
const SHAPES = [
  ["#dc2328", (pen) => pen.arc(82, 64, 50, 0, 2 * Math.PI)],
  ["#2850e1", (pen) => pen.rect(318, 12, 100, 100)],
  ["#f2d728", (pen) => star(pen, 224, 280, 52)],
];
const WORD = "HELLO";

/**
 * What the cards of the empty page do. The questions are in English, which every model understands that is served here.
 * @type {{ label: import("../page/texts.js").TextKey, question: string, file: () => Promise<File> }[]}
 */
export const EXAMPLES = [
  { label: "exampleDescribe", question: "What is in this picture?", file: shapes },
  { label: "examplePoint", question: "Find the red circle.", file: shapes },
  { label: "exampleRead", question: "What does it say?", file: word },
  { label: "exampleVideo", question: "What happens in the video?", file: video },
];

function shapes() {
  return picture("shapes.png", SIZE, (pen) => {
    for (const [color, shape] of SHAPES) {
      pen.fillStyle = color;
      pen.beginPath();
      shape(pen);
      pen.fill();
    }
  });
}

function word() {
  return picture("word.png", { width: 224, height: 84 }, (pen) => {
    pen.fillStyle = "#101010";
    pen.font = "600 54px Inter, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText(WORD, 112, 44);
  });
}

async function video() {
  const response = await fetch(new URL("../../examples/moving.mp4", import.meta.url));
  return new File([await response.blob()], "moving.mp4", { type: "video/mp4" });
}

/**
 * @param {string} name
 * @param {{ width: number, height: number }} size
 * @param {(pen: OffscreenCanvasRenderingContext2D) => void} draw
 */
async function picture(name, { width, height }, draw) {
  const canvas = new OffscreenCanvas(width, height);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.fillStyle = PAPER;
  pen.fillRect(0, 0, width, height);
  draw(pen);
  return new File([await canvas.convertToBlob({ type: "image/png" })], name, { type: "image/png" });
}

function star(/** @type {OffscreenCanvasRenderingContext2D} */ pen, /** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ radius) {
  for (let corner = 0; corner < 10; corner++) {
    const reach = corner % 2 ? radius * 0.4 : radius;
    const angle = (corner * Math.PI) / 5;
    pen.lineTo(x + reach * Math.sin(angle), y - reach * Math.cos(angle));
  }
}
