/** The form of settings: what is left empty is left to the server. */

import { el } from "../page/dom.js";

const SAMPLING = [
  { name: "temperature", min: 0, max: 2, hint: "1", initial: "0" },
  { name: "top_p", min: 0, max: 1, hint: "1" },
  { name: "top_k", min: -1, step: 1, hint: "all" },
  { name: "min_p", min: 0, max: 1, hint: "0" },
  { name: "repetition_penalty", min: 0, max: 100, hint: "1" },
  { name: "presence_penalty", min: -2, max: 2, hint: "0" },
  { name: "frequency_penalty", min: -2, max: 2, hint: "0" },
  { name: "seed", step: 1, hint: "random" },
  { name: "max_completion_tokens", min: 1, step: 1, hint: "as many as fit" },
  { name: "stop", text: true, hint: "nothing" },
];
const MEDIA = [
  { name: "max_pixels", min: 784, step: 1, hint: "server's limit" },
  { name: "fps", min: 0, hint: "2" },
  { name: "max_frames", min: 2, step: 1, hint: "768" },
];

/** The form's fields and how to read them. */
export class Settings {
  #form;

  /** @param form the empty form; it fires "input" on every change. */
  constructor(form) {
    this.#form = form;
    form.append(
      el("label", { class: "wide" }, "System message", el("textarea", { name: "system", rows: 2, placeholder: "none" })),
      el("fieldset", {}, el("legend", {}, "Sampling"), ...SAMPLING.map(field)),
      el("fieldset", {}, el("legend", {}, "Pictures and clips"), ...MEDIA.map(field)),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Whether every field can be used; the browser shows which cannot. */
  check() {
    if (this.#form.checkValidity()) return true;
    this.#form.closest("details").open = true;
    return this.#form.reportValidity();
  }

  /** `{ system, sampling, media }`: a text, and two objects with the fields that are filled in. */
  read() {
    return { system: this.#value("system"), sampling: this.#filled(SAMPLING), media: this.#filled(MEDIA) };
  }

  #filled(fields) {
    const filled = fields.filter(({ name }) => this.#value(name) !== "" && this.#form.elements[name].validity.valid);
    return Object.fromEntries(filled.map(({ name, text }) => [name, text ? this.#value(name) : Number(this.#value(name))]));
  }

  #value(name) {
    return this.#form.elements[name].value;
  }
}

function field({ name, text, min, max, step = "any", hint, initial }) {
  const kind = text ? { type: "text" } : { type: "number", min, max, step, inputmode: "decimal" };
  return el("label", {}, name, el("input", { name, ...kind, placeholder: hint, value: initial, autocomplete: "off" }));
}
