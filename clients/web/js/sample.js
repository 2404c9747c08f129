/** Something to begin with: questions, and a picture and a clip drawn here, in the world the bundled model knows. */

const SIZE = { width: 448, height: 336 };
const SHAPES = [
  ["#dc322f", (pen) => pen.arc(112, 120, 62, 0, 2 * Math.PI)],
  ["#2f6fdc", (pen) => pen.rect(268, 58, 120, 120)],
  ["#e3b505", (pen) => star(pen, 224, 246, 66)],
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
  pen.fillStyle = "#f4f4f4";
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
