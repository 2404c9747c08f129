/** Something to begin with: questions, and a picture drawn here, in the world the bundled model knows. */

const SIZE = { width: 448, height: 336 };
const PAPER = "#fcfcfc";
const SHAPES = [
  ["#dc2328", (pen) => pen.arc(82, 64, 50, 0, 2 * Math.PI)],
  ["#2850e1", (pen) => pen.rect(318, 12, 100, 100)],
  ["#f2d728", (pen) => star(pen, 224, 280, 52)],
];

/** What the buttons of the empty page do: `{ label, question, file }`; `file` makes one, where there is one. */
export const SUGGESTIONS = [
  { label: "A drawn picture", question: "What is in this picture?", file: () => picture() },
  { label: "Point at something", question: "Find the red circle.", file: () => picture() },
  { label: "Who are you?", question: "Who are you?" },
];

async function picture() {
  const canvas = new OffscreenCanvas(SIZE.width, SIZE.height);
  const pen = canvas.getContext("2d");
  pen.fillStyle = PAPER;
  pen.fillRect(0, 0, SIZE.width, SIZE.height);
  for (const [color, shape] of SHAPES) {
    pen.fillStyle = color;
    pen.beginPath();
    shape(pen);
    pen.fill();
  }
  return new File([await canvas.convertToBlob({ type: "image/png" })], "shapes.png", { type: "image/png" });
}

function star(pen, x, y, radius) {
  for (let corner = 0; corner < 10; corner++) {
    const reach = corner % 2 ? radius * 0.4 : radius;
    const angle = (corner * Math.PI) / 5;
    pen.lineTo(x + reach * Math.sin(angle), y - reach * Math.cos(angle));
  }
}
