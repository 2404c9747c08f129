// @ts-check
/** The empty page: what the model can do, and four examples that a click asks. */

import { byId, el } from "./dom.js";
import { t } from "./texts.js";
import { toast } from "./toast.js";
import { EXAMPLES } from "../media/examples.js";

/** Fill in the cards; `ask` gets a question and its files. */
export async function showExamples(/** @type {(question: string, files: File[]) => void} */ ask) {
  const cards = EXAMPLES.map(({ label, question, file }) => {
    const place = el("span", { class: "card-view" });
    const card = el("button", { type: "button", class: "card", onclick: () => file().then((made) => ask(question, [made]), () => toast(t("unreachableError"))) },
      place, el("b", {}, t(label)), el("span", { class: "hint", lang: "en" }, question));
    return { card, place, file };
  });
  byId("examples").replaceChildren(...cards.map(({ card }) => card));
  for (const { card, place, file } of cards) {
    const made = await file().catch(() => null); // the server may be gone: the card stays, without a view
    if (!made) continue;
    const url = URL.createObjectURL(made);
    if (!made.type.startsWith("video/")) {
      place.append(el("img", { src: url, alt: "" }));
      continue;
    }
    const video = el("video", { src: `${url}#t=0.001`, loop: true, playsinline: true, preload: "metadata", "aria-hidden": "true" });
    video.muted = true;
    for (const name of ["pointerenter", "focus"]) card.addEventListener(name, () => video.play().catch(() => {}));
    for (const name of ["pointerleave", "blur"]) card.addEventListener(name, () => video.pause());
    place.append(video);
  }
}

/** Say which model is there and what it can do. */
export function showModel(/** @type {import("../server/state.js").Model | undefined} */ model) {
  byId("about-model").textContent = model?.description ?? "";
  byId("about-model").hidden = !model?.description;
}
