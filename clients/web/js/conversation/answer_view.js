// @ts-check
/** An answer as it is seen: while it is written, and when it is done with its boxes, table, calls, numbers and what can be done. */

import { announce, el, link } from "../page/dom.js";
import { count } from "../page/format.js";
import { t } from "../page/texts.js";
import { boxes, readable } from "../answer/grounding.js";
import { copy } from "../answer/copy.js";
import { jsonView, parsed } from "../answer/json_table.js";
import { measures } from "../answer/measures.js";
import { render } from "../answer/markdown.js";
import { boxesView } from "../answer/overlay.js";
import { callCards, resultFields } from "../answer/tool_calls.js";
import { sentence } from "../server/errors.js";

/** One answer, which may stand beside another one. */
export class AnswerView {
  #drawing = 0;
  #status = el("p", { class: "waiting", role: "status" }, el("span", { class: "tesserae", "aria-hidden": "true" }), el("span", {}, t("thinking")));
  #text = el("div", { class: "prose" });
  #end = el("div", { class: "end" });

  /**
   * @param {import("./conversation.js").Turn} turn
   * @param {import("./conversation.js").Answer} answer
   * @param {any} actions what the buttons do; `pictures(turn)` are those the answer may point at
   */
  constructor(turn, answer, actions) {
    this.turn = turn;
    this.answer = answer;
    this.actions = actions;
    this.element = el("article", { class: "version" }, this.#heading(), this.#status, this.#text, this.#end);
    this.#draw();
    if (answer.state === "writing") this.element.setAttribute("aria-busy", "true");
    else this.#close();
  }

  /** Say what is going on before the first word. */
  status(/** @type {string} */ text) {
    this.#status.lastChild.textContent = `${text[0].toUpperCase()}${text.slice(1)}`;
  }

  /** More came; it is drawn with the next frame, with all that came until then. */
  more() {
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  /** It is written no longer. */
  close() {
    this.#draw();
    this.#close();
    const { state, raw } = this.answer;
    announce(state === "complete" ? t("announceAnswer", { text: readable(raw) }) : t("stopped"));
  }

  #draw() {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    const { raw, calls, state } = this.answer;
    this.#status.hidden = state !== "writing" || raw !== "" || calls.length > 0;
    const value = state === "complete" ? parsed(readable(raw)) : undefined;
    this.#text.replaceChildren(value === undefined ? render(readable(raw)) : jsonView(value), ...callCards(calls));
  }

  #close() {
    const { answer, turn, actions } = this;
    const { raw, calls, state, end } = answer;
    const text = readable(raw);
    const found = boxes(raw);
    const pictures = found.length ? actions.pictures(turn) : [];
    this.element.removeAttribute("aria-busy");
    this.#status.hidden = true;
    this.#end.replaceChildren(...[
      found.length > 0 && pictures.length > 0 && boxesView(found, pictures),
      !raw && !calls.length && state === "complete" && el("p", { class: "hint" }, t("emptyAnswer")),
      state === "stopped" && el("p", { class: "hint" }, t("stopped")),
      (state === "broken" || state === "failed") && el("div", { class: "problem", role: "alert" }, el("p", {}, answer.error ? sentence(answer.error) : t("brokeOff")), raw && el("p", { class: "hint" }, t("whatHadCome"))),
      calls.length > 0 && state === "complete" && resultFields(calls, actions.giveResults),
      el("footer", { class: "measures" }, end && measures(end, { withMedia: turn.answers.length > 1 }), el("div", { class: "answer-actions" }, ...this.#buttons(text))),
    ].filter(Boolean));
  }

  #buttons(/** @type {string} */ text) {
    const { turn, answer, actions } = this;
    const { state, end } = answer;
    const idle = { class: "link idle-only" };
    const last = { class: "link idle-only only-last" };
    const isOne = turn.answers.length === 1;
    const cut = state === "stopped" || state === "broken" || end?.finish === "length";
    return [
      text && link(t("copy"), (event) => copy(event.target, text)),
      link(t("asCode"), () => actions.showCode(turn, answer)),
      isOne && cut && !answer.calls.length && text && link(t("goOn"), () => actions.goOn(turn), last),
      isOne && link(t("again"), () => actions.again(turn), idle),
      isOne && link(t("compare"), () => actions.compare(turn), idle),
      !isOne && link(t("keepThis"), () => actions.keepOnly(turn, answer), idle),
    ].filter(Boolean);
  }

  /** Beside another answer: what is different here. */
  #heading() {
    const { turn, answer } = this;
    const other = turn.answers.find((each) => each !== answer);
    if (!other) return null;
    return el("h3", { class: "difference" }, ...differences(answer, other).map((each) => el("code", {}, each)));
  }
}

/**
 * What one answer was asked with and the other was not: "max_pixels 50,176". Pure.
 * @param {import("./conversation.js").Answer} answer
 * @param {import("./conversation.js").Answer} other
 */
export function differences(answer, other) {
  const facts = (/** @type {import("./conversation.js").Answer} */ { model, settings: { system, sampling, media, extra } }) => ({ model, system, ...media, ...sampling, ...extra });
  const [own, others] = [/** @type {Record<string, any>} */ (facts(answer)), /** @type {Record<string, any>} */ (facts(other))];
  const names = [...new Set([...Object.keys(own), ...Object.keys(others)])].filter((name) => JSON.stringify(own[name]) !== JSON.stringify(others[name]));
  if (!names.length) return [t("sameSettings")];
  return names.map((name) => {
    const value = own[name];
    const shown = value === undefined || value === "" ? t("notSet") : typeof value === "number" ? count(value) : typeof value === "string" ? value : JSON.stringify(value);
    return name === "model" ? shown : `${name} ${shown.length > 60 ? `${shown.slice(0, 59)}…` : shown}`;
  });
}
