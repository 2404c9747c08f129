/** The conversation as it is seen: one item per question and per answer. */

import { tokensPerSecond } from "../server/chat.js";
import { announce, byId, el } from "../page/dom.js";
import { count, duration } from "../page/format.js";
import { boxes, readable } from "../answer/grounding.js";
import { render } from "../answer/markdown.js";
import { boxesView } from "../answer/overlay.js";
import { thumbnail } from "../media/attachment_tray.js";

const list = byId("turns");
const talk = byId("talk");
/** Whether the end is in sight: whoever scrolled up to read is left alone. */
let atEnd = true;
talk.addEventListener("scroll", () => (atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40));
const follow = () => atEnd && talk.scrollTo(0, talk.scrollHeight);
const sizes = new ResizeObserver(follow);
sizes.observe(list);
sizes.observe(byId("composer"));

/** Show what was asked. */
export function addQuestion({ text, attachments }) {
  list.append(el("li", { class: "question" },
    el("h2", { class: "unseen" }, "You"),
    attachments.length > 0 && el("ul", { class: "media", "aria-label": "Sent along" }, ...attachments.map(sent)),
    text && el("p", {}, text)));
}

/** Forget everything shown. */
export const clearTurns = () => list.replaceChildren();

function sent(attachment) {
  const view = attachment.modality === "video" && attachment.file.type.startsWith("video/")
    ? el("video", { src: attachment.url, controls: true, muted: true, loop: true, "aria-label": attachment.name })
    : thumbnail(attachment);
  return el("li", { title: attachment.name }, view, el("span", { class: "unseen" }, attachment.name));
}

/** An answer that is being written. */
export class Answer {
  #raw = "";
  #drawing = 0;
  #status = el("p", { class: "waiting", role: "status" }, el("span", { class: "tesserae", "aria-hidden": "true" }), el("span", {}, "Thinking…"));
  #text = el("div", { class: "prose" });
  #item = el("li", { class: "answer", "aria-busy": "true" }, el("h2", { class: "unseen" }, "Answer"), this.#status, this.#text);

  constructor() {
    atEnd = true;
    list.append(this.#item);
  }

  /** What the model wrote so far, special tokens included. */
  get raw() {
    return this.#raw;
  }

  /** Say what is going on before the first word. */
  status(text) {
    this.#status.lastChild.textContent = `${text[0].toUpperCase()}${text.slice(1)}`;
  }

  /** Add a piece; it is drawn with the next frame, with all that came until then. */
  add(piece) {
    this.#raw += piece;
    this.#status.remove();
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  /** The whole answer is there. `pictures` are those it may point at, `showCode` opens the request as code. */
  finish(end, pictures, showCode) {
    this.#close();
    const found = boxes(this.#raw);
    if (found.length && pictures.length) this.#item.append(boxesView(found, pictures));
    if (!this.#raw) this.#text.append(el("p", { class: "hint" }, "(an empty answer)"));
    this.#item.append(measures(end, showCode, () => readable(this.#raw)));
    announce(`Answer: ${readable(this.#raw)}`);
  }

  /** The person stopped it. */
  stopped() {
    this.#close();
    this.#item.append(el("p", { class: "hint" }, "Stopped."));
    announce("Stopped.");
  }

  /** It failed: tell why, and offer to `retry`. */
  failed(error, retry) {
    this.#close();
    const again = () => {
      this.#item.remove();
      retry();
    };
    this.#item.append(el("div", { class: "problem", role: "alert" },
      el("p", {}, error.message),
      error.param && el("p", { class: "hint" }, "In ", el("code", {}, error.param)),
      el("button", { type: "button", class: "link", onclick: again }, "Try again")));
  }

  #draw() {
    this.#drawing = 0;
    this.#text.replaceChildren(render(readable(this.#raw)));
  }

  #close() {
    cancelAnimationFrame(this.#drawing);
    this.#status.remove();
    this.#draw();
    this.#item.removeAttribute("aria-busy");
  }
}

function measures(end, showCode, text) {
  const rate = tokensPerSecond(end);
  const { usage } = end;
  const facts = [
    end.firstMs !== null && ["first token", duration(end.firstMs), "first-token"],
    rate !== null && ["speed", `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`, "speed"],
    usage && ["prompt", tokensOf(usage), "prompt"],
    usage && ["answer", count(usage.completion_tokens), "answer"],
    end.finish === "length" && ["cut", "at the longest answer", "cut"],
  ];
  return el("footer", { class: "measures" },
    el("dl", {}, ...facts.filter(Boolean).map(([term, fact, name]) => el("div", { "data-fact": name }, el("dt", {}, term), el("dd", {}, fact)))),
    el("button", { type: "button", class: "link", onclick: (event) => copy(event.target, text()) }, "Copy"),
    el("button", { type: "button", class: "link", onclick: showCode }, "As code"));
}

function tokensOf({ prompt_tokens, prompt_tokens_details: { cached_tokens } }) {
  return cached_tokens ? `${count(prompt_tokens)}, ${count(cached_tokens)} cached` : count(prompt_tokens);
}

/** Copy a text and say so on the button. */
export async function copy(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    announce("Copied.");
  } catch {
    button.textContent = "This browser does not let pages copy";
  }
  setTimeout(() => (button.textContent = label), 1500);
}
