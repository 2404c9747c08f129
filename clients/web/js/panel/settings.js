// @ts-check
/** A form of settings: the system message, sampling, media, the form of the answer, tools, and anything else as JSON. */

import { el, link } from "../page/dom.js";
import { count } from "../page/format.js";
import { t } from "../page/texts.js";
import { FORMS, MEDIA, SAMPLING, TOOLS_EXAMPLE } from "./setting_fields.js";

/**
 * What is set: the parts of a request, and `fields`, the form's own values by name.
 * @typedef {{ system: string, sampling: Record<string, any>, media: Record<string, any>, extra: Record<string, any>, fields: Record<string, string> }} Values
 */

const PIXELS_A_TOKEN = 784;
const WRAP = { schema: (/** @type {any} */ schema) => ({ response_format: { type: "json_schema", json_schema: { name: "answer", schema, strict: true } } }) };
let numForms = 0;

/** The form's fields and how to read them. */
export class Settings {
  #form;
  #prefix = `set${++numForms}`;

  /** @param {any} form an empty form; it fires "input" on every change. */
  constructor(form) {
    this.#form = form;
    form.append(
      el("label", { class: "wide" }, t("systemMessage"), el("textarea", { name: "system", rows: 2, placeholder: t("none") })),
      this.#group("groupMedia", MEDIA),
      this.#group("groupSampling", SAMPLING),
      el("fieldset", { class: "wide" }, el("legend", {}, t("groupForm")), ...this.#answerForm()),
      link(t("resetSettings"), () => this.reset(), { "data-reset": "" }),
    );
    form.addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
    form.addEventListener("input", () => this.#tell());
    this.#tell();
  }

  /** Whether every field can be used; the browser shows which cannot. */
  check() {
    if (this.#form.checkValidity()) return true;
    const section = this.#form.closest("details");
    if (section) section.open = true;
    return this.#form.reportValidity();
  }

  /** @returns {Values} */
  read() {
    const fields = Object.fromEntries([...this.#form.elements].filter(({ name }) => name).map(({ name, value }) => [name, value]));
    return { system: fields.system, sampling: this.#filled(SAMPLING), media: this.#filled(MEDIA), extra: this.#extra(), fields };
  }

  /** Fill the form with values that `read` gave. */
  write(/** @type {Record<string, string>} */ fields) {
    for (const element of this.#form.elements) if (element.name in fields) element.value = fields[element.name];
    this.#tell();
  }

  /** Back to what was there at first. */
  reset() {
    this.#form.reset();
    this.#form.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** Set one field. */
  set(/** @type {string} */ name, /** @type {string} */ value) {
    this.#form.elements[name].value = value;
    this.#form.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** How many fields are not as they were at first. */
  get numChanged() {
    return [...this.#form.elements].filter((element) => element.name && element.value !== initial(element)).length;
  }

  #group(/** @type {any} */ legend, /** @type {import("./setting_fields.js").Field[]} */ fields) {
    return el("fieldset", {}, el("legend", {}, t(legend)), ...fields.map((field) => this.#field(field)));
  }

  #field(/** @type {import("./setting_fields.js").Field} */ { name, text, min, max, step, help, hint, hintText, initial: first }) {
    const id = `${this.#prefix}-${name}`;
    const kind = text ? { type: "text" } : { type: "number", min, max, step: step ?? "any", inputmode: "decimal" };
    return el("div", { class: "field" },
      el("label", { for: id }, name),
      el("input", { id, name, ...kind, placeholder: hint ?? (hintText && t(hintText)), value: first, autocomplete: "off", "aria-describedby": `${id}-help` }),
      el("small", { id: `${id}-help`, "data-help": name }, t(help)));
  }

  #answerForm() {
    const forms = Object.keys(FORMS).map((name) => el("option", { value: name }, t(/** @type {any} */ (`form_${name}`))));
    const written = el("textarea", { name: "form_value", rows: 5, spellcheck: "false", "aria-label": t("formValue") });
    const select = el("select", { name: "form", onchange: () => {
      if (!written.value || Object.values(FORMS).includes(written.value)) written.value = FORMS[/** @type {keyof typeof FORMS} */ (select.value)] ?? "";
      this.#form.dispatchEvent(new Event("input", { bubbles: true }));
    } }, ...forms);
    return [
      el("label", {}, t("formOfAnswer"), select),
      written,
      el("label", {}, t("tools"), el("textarea", { name: "tools", rows: 3, spellcheck: "false", placeholder: TOOLS_EXAMPLE })),
      el("label", {}, t("furtherJson"), el("textarea", { name: "further", rows: 2, spellcheck: "false", placeholder: '{ "logit_bias": { "1": -100 } }' })),
    ];
  }

  /** Check what is written as JSON, and tell what depends on other fields. */
  #tell() {
    const { form, form_value: written, tools, further, max_pixels: maxPixels } = this.#form.elements;
    written.hidden = FORMS[/** @type {keyof typeof FORMS} */ (form.value)] === null;
    written.setCustomValidity(form.value === "schema" && !isKind(written.value, "object") ? t("noJsonObject") : form.value !== "text" && form.value !== "json" && !written.value.trim() ? t("formMissing") : "");
    tools.setCustomValidity(tools.value.trim() && !isKind(tools.value, "array") ? t("noJsonList") : "");
    further.setCustomValidity(further.value.trim() && !isKind(further.value, "object") ? t("noJsonObject") : "");
    const limit = Number(maxPixels.value);
    const help = this.#form.querySelector("[data-help=max_pixels]");
    help.textContent = limit >= PIXELS_A_TOKEN ? t("helpMaxPixelsIs", { n: count(Math.floor(limit / PIXELS_A_TOKEN)) }) : t("helpMaxPixels");
  }

  #extra() {
    const { form, form_value: written, tools, further } = this.#form.elements;
    return { ...this.#constraint(form.value, written.value), ...(isKind(tools.value, "array") && { tools: JSON.parse(tools.value) }), ...(isKind(further.value, "object") && JSON.parse(further.value)) };
  }

  #constraint(/** @type {string} */ form, /** @type {string} */ text) {
    if (form === "json") return { response_format: { type: "json_object" } };
    if (form === "schema") return isKind(text, "object") ? WRAP.schema(JSON.parse(text)) : {};
    if (form === "regex") return text.trim() ? { structured_outputs: { regex: text.trim() } } : {};
    const choice = text.split("\n").map((line) => line.trim()).filter(Boolean);
    return form === "choice" && choice.length ? { structured_outputs: { choice } } : {};
  }

  #filled(/** @type {import("./setting_fields.js").Field[]} */ fields) {
    const value = (/** @type {string} */ name) => this.#form.elements[name];
    const filled = fields.filter(({ name }) => value(name).value !== "" && value(name).validity.valid);
    return Object.fromEntries(filled.map(({ name, text }) => [name, text ? value(name).value : Number(value(name).value)]));
  }
}

/** Whether a text is JSON of that kind. */
function isKind(/** @type {string} */ text, /** @type {"array" | "object"} */ kind) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && Array.isArray(value) === (kind === "array");
  } catch {
    return false;
  }
}

const initial = (/** @type {any} */ element) => element.defaultValue ?? element.options?.[0]?.value ?? "";
