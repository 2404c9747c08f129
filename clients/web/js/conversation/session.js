// @ts-check
/** The conversation that is open: its questions and answers, and everything that can be done with them. */

import { ask } from "../server/chat.js";
import { goneFile } from "../server/errors.js";
import { chatBody, mediaOf } from "../server/request_body.js";
import { answerTurn, newAnswer, newId, question, resultsTurn } from "./conversation.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./conversation.js").Answer} Answer */
/** @typedef {import("../panel/settings.js").Values} Values */
/** @typedef {{ id: string, title: string, named: boolean, createdMs: number, turns: Turn[] }} Conversation */

/** @returns {Conversation} */
export const emptyConversation = () => ({ id: newId(), title: "", named: false, createdMs: Date.now(), turns: [] });

/**
 * Dispatches "change" when turns came, went or ended, "writing" with `{ answer, status }` while one is written, and
 * "failure" with an ApiError, and "media" when one of its attachments has changed, with `same` where it is asked for as before.
 */
export class Session extends EventTarget {
  current = emptyConversation();
  /** @type {AbortController | null} of the answer being written */
  #running = null;

  /** @param {() => { model: string | null, settings: Values }} chosen the model and settings of the next answer */
  constructor(chosen) {
    super();
    this.chosen = chosen;
  }

  get turns() {
    return this.current.turns;
  }

  get running() {
    return this.#running !== null;
  }

  /** Whether that turn is the last one. */
  isLast(/** @type {Turn} */ turn) {
    return this.turns.at(-1) === turn;
  }

  /** End the answer that is being written; what came is kept. */
  stop() {
    this.#running?.abort();
  }

  /** Turn to another conversation. */
  open(/** @type {Conversation} */ conversation) {
    this.stop();
    this.#running = null;
    this.current = conversation;
    for (const attachment of conversation.turns.flatMap(({ attachments }) => attachments)) this.#follow(attachment);
    this.#changed();
  }

  /** Ask something. */
  async ask(/** @type {string} */ text, /** @type {any[]} */ attachments) {
    await this.#askTurn(question(text, attachments));
  }

  /** Tell the model what the functions it called gave back. */
  async giveResults(/** @type {Turn["results"]} */ results) {
    await this.#askTurn(resultsTurn(results));
  }

  /** Ask a question that failed once more, as it stands; only the last one can be. */
  async retry(/** @type {Turn} */ turn) {
    if (this.running || !this.isLast(turn)) return;
    turn.failed = null;
    await this.#write(turn, answerTurn(this.#newAnswer()));
  }

  /** Another answer in place of this one; what came after it goes. */
  async again(/** @type {Turn} */ turn) {
    const asked = this.turns[this.turns.indexOf(turn) - 1];
    if (this.running || !asked) return;
    this.cutFrom(turn);
    await this.#write(asked, answerTurn(this.#newAnswer()));
  }

  /** Go on with the last answer, which was stopped or cut. */
  async goOn(/** @type {Turn} */ turn) {
    if (this.running || !this.isLast(turn)) return;
    const answer = turn.answers[turn.chosen];
    Object.assign(answer, { state: "writing", error: null });
    await this.#write(this.turns[this.turns.indexOf(turn) - 1], turn, { answer, continuing: true });
  }

  /** Ask the same with another model or other settings, and set the answer beside this one. */
  async compare(/** @type {Turn} */ turn, /** @type {string} */ model, /** @type {Values} */ settings) {
    if (this.running) return;
    const answer = newAnswer(model, settings);
    turn.answers = [turn.answers[turn.chosen], answer];
    turn.chosen = 0;
    await this.#write(this.turns[this.turns.indexOf(turn) - 1], turn, { answer });
  }

  /** Go on with one of two answers; the other one goes. */
  keepOnly(/** @type {Turn} */ turn, /** @type {Answer} */ answer) {
    if (this.running) return;
    turn.answers = [answer];
    turn.chosen = 0;
    this.#changed();
  }

  /** Take a turn and all after it away; returns them. */
  cutFrom(/** @type {Turn} */ turn) {
    const removed = this.turns.splice(this.turns.indexOf(turn));
    this.#changed();
    return removed;
  }

  /** Take one turn away. */
  remove(/** @type {Turn} */ turn) {
    this.current.turns = this.turns.filter((each) => each !== turn);
    this.#changed();
  }

  /** A function that puts all turns back as they are now. */
  snapshot() {
    const conversation = this.current;
    const states = conversation.turns.map((turn) => ({ turn, failed: turn.failed, answers: turn.answers }));
    return () => {
      this.stop();
      for (const { turn, ...state } of states) Object.assign(turn, state);
      conversation.turns = states.map(({ turn }) => turn);
      this.#changed(conversation);
    };
  }

  /** The request that an answer came from. */
  bodyOf(/** @type {Turn} */ turn, /** @type {Answer} */ answer, options = {}) {
    return chatBody(answer.model, this.before(turn), answer.settings, options);
  }

  /** The turns before one. */
  before(/** @type {Turn} */ turn) {
    return this.turns.slice(0, this.turns.indexOf(turn));
  }

  async #askTurn(/** @type {Turn} */ turn) {
    if (this.running) return;
    this.turns.push(turn);
    for (const attachment of turn.attachments) this.#follow(attachment);
    await this.#write(turn, answerTurn(this.#newAnswer()));
  }

  #newAnswer() {
    const { model, settings } = this.chosen();
    return newAnswer(/** @type {string} */ (model), settings);
  }

  /**
   * Have an answer written.
   * @param {Turn} asked what it answers; fails where not a word comes.
   * @param {Turn} turn the answer's
   */
  async #write(asked, turn, { answer = turn.answers[0], continuing = false } = {}) {
    const conversation = this.current;
    const running = (this.#running = new AbortController());
    if (!conversation.turns.includes(turn)) conversation.turns.push(turn);
    this.#changed();
    const earlier = conversation.turns.slice(0, conversation.turns.indexOf(turn) + (continuing ? 1 : 0));
    await this.#receive(answer, earlier, running.signal, continuing);
    if (!answer.raw && !answer.calls.length && answer.state !== "complete" && turn.answers.length === 1) {
      conversation.turns = conversation.turns.filter((each) => each !== turn);
      asked.failed = answer.error ?? { message: "", stopped: true };
    }
    if (this.#running === running) this.#running = null;
    this.#changed(conversation);
  }

  /** Read the stream into the answer; uploads that the server has lost are sent once more. */
  async #receive(/** @type {Answer} */ answer, /** @type {Turn[]} */ earlier, /** @type {AbortSignal} */ signal, /** @type {boolean} */ continuing) {
    for (let renewals = mediaOf(earlier).length; ; renewals--) {
      const body = chatBody(answer.model, earlier, answer.settings, { continuing });
      try {
        await this.#stream(answer, body, earlier, signal);
        answer.state = "complete";
        return;
      } catch (caught) {
        const error = /** @type {any} */ (caught);
        if (error.name === "AbortError") {
          answer.state = "stopped";
          return;
        }
        if (renewals > 0 && (await this.renew(error, earlier, answer.settings))) continue;
        Object.assign(answer, { error, state: answer.raw || answer.calls.length ? "broken" : "failed" });
        this.dispatchEvent(new CustomEvent("failure", { detail: error }));
        return;
      }
    }
  }

  async #stream(/** @type {Answer} */ answer, /** @type {any} */ body, /** @type {Turn[]} */ earlier, /** @type {AbortSignal} */ signal) {
    for await (const { status, text, calls, end } of ask(body, signal)) {
      if (text) answer.raw += text;
      if (calls) answer.calls = calls;
      if (end) {
        answer.end = end;
        const media = mediaOf(earlier);
        end.media.forEach((report, index) => media[index]?.told(report));
      }
      this.dispatchEvent(new CustomEvent("writing", { detail: { answer, status } }));
    }
  }

  /** Where an error says that an upload is gone: send it again. Whether that was possible. */
  async renew(/** @type {any} */ error, /** @type {Turn[]} */ turns, /** @type {Values} */ settings) {
    const at = goneFile(error);
    if (!at) return false;
    const sent = turns.filter(({ failed }) => !failed);
    const messages = sent.flatMap((turn) => (turn.role === "tool" ? turn.results.map(() => turn) : [turn]));
    const turn = messages[at.message - (settings.system ? 1 : 0)];
    const attachment = turn && mediaOf([turn])[at.part];
    return attachment ? attachment.renew() : false;
  }

  #follow(/** @type {any} */ attachment) {
    if (attachment.followed) return;
    attachment.followed = true;
    let told = attachment.asked;
    attachment.addEventListener("change", () => {
      this.dispatchEvent(new CustomEvent("media", { detail: { same: attachment.asked === told } }));
      told = attachment.asked;
    });
  }

  #changed(conversation = this.current) {
    this.dispatchEvent(new CustomEvent("change", { detail: conversation }));
  }
}
