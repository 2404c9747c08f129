// @ts-check
/** The conversation as it is seen: one item for each turn, kept as long as what it shows is the same. */

import { byId, el } from "../page/dom.js";
import { t } from "../page/texts.js";
import { AnswerView } from "./answer_view.js";
import { questionView } from "./question_view.js";

const list = byId("turns");
const talk = byId("talk");
/** Whether the end is in sight: whoever scrolled up to read is left alone. */
let atEnd = true;
talk.addEventListener("scroll", () => (atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40));
const follow = () => atEnd && talk.scrollTo(0, list.childElementCount ? talk.scrollHeight : 0); // an empty page is read from its top
const sizes = new ResizeObserver(follow);
sizes.observe(list);
sizes.observe(byId("composer"));

/** @type {WeakMap<object, { shows: any[], element: any }>} */
const items = new WeakMap();
/** @type {WeakMap<object, AnswerView>} */
const views = new WeakMap();

/**
 * Show these turns.
 * @param {import("./conversation.js").Turn[]} turns
 * @param {any} actions what buttons do
 * @param {boolean} running whether an answer is being written
 */
export function showTurns(turns, actions, running) {
  const before = list.querySelectorAll(".question, .version").length;
  const elements = turns.map((turn) => itemOf(turn, actions));
  for (const answer of turns.flatMap(({ answers }) => answers)) {
    const view = views.get(answer);
    if (view && answer.state !== "writing" && view.element.hasAttribute("aria-busy")) view.close();
  }
  if (elements.length !== list.childElementCount || elements.some((element, index) => list.children[index] !== element)) list.replaceChildren(...elements);
  list.toggleAttribute("data-running", running);
  if (list.querySelectorAll(".question, .version").length > before) {
    atEnd = true;
    follow();
  }
}

/** An answer has grown, or the server says what it waits for. */
export function showWriting(/** @type {import("./conversation.js").Answer} */ answer, /** @type {string | undefined} */ status) {
  const view = views.get(answer);
  if (status) view?.status(status);
  else view?.more();
}

function itemOf(/** @type {import("./conversation.js").Turn} */ turn, /** @type {any} */ actions) {
  const shows = turn.role === "assistant" ? [...turn.answers, ...turn.answers.map(({ state }) => state === "writing" && "writing")] : [turn.failed];
  const known = items.get(turn);
  const isSame = known && known.shows.length === shows.length && shows.every((each, index) => each === known.shows[index]);
  if (known && (isSame || endedOnly(known.shows, shows, turn))) {
    known.shows = shows;
    return known.element;
  }
  const element = turn.role === "assistant" ? answerItem(turn, actions) : questionView(turn, actions);
  items.set(turn, { shows, element });
  return element;
}

/** Whether all that happened is that answers ended, which their views show themselves. */
const endedOnly = (/** @type {any[]} */ old, /** @type {any[]} */ now, /** @type {import("./conversation.js").Turn} */ { answers }) =>
  answers.length > 0 && old.length === now.length && answers.every((answer, index) => old[index] === answer && (old[answers.length + index] || !now[answers.length + index]));

function answerItem(/** @type {import("./conversation.js").Turn} */ turn, /** @type {any} */ actions) {
  const versions = turn.answers.map((answer) => {
    const view = new AnswerView(turn, answer, actions);
    views.set(answer, view);
    return view.element;
  });
  return el("li", { class: "answer", "data-versions": versions.length }, el("h2", { class: "unseen" }, t("answer")), ...versions);
}
