// @ts-check
/** The numbers below an answer. */

import { el } from "../page/dom.js";
import { count, duration, pixels, tokens } from "../page/format.js";
import { t } from "../page/texts.js";
import { tokensPerSecond } from "../server/chat.js";

/** A list of facts: times as the person saw them, counts as the server told them. */
export function measures(/** @type {import("../server/chat.js").End} */ end, { withMedia = false } = {}) {
  const rate = tokensPerSecond(end);
  const { usage } = end;
  /** @type {[string, string, string][]} */
  const facts = [];
  if (end.firstMs !== null) facts.push([t("firstToken"), duration(end.firstMs), "first-token"]);
  if (end.lastMs !== null) facts.push([t("totalTime"), duration(end.lastMs), "total"]);
  if (rate !== null) facts.push([t("speed"), t("tokensPerSecond", { n: rate.toFixed(rate < 10 ? 1 : 0) }), "speed"]);
  if (usage) facts.push([t("prompt"), prompt(usage), "prompt"], [t("answerTerm"), count(usage.completion_tokens), "answer"]);
  if (withMedia) for (const { size, tokens: num } of end.media) facts.push([t("mediaTerm"), `${pixels(size)}, ${tokens(num)}`, "media"]);
  if (end.finish === "length") facts.push([t("cutOff"), t("longestReached"), "cut"]);
  return el("dl", {}, ...facts.map(([term, fact, name]) => el("div", { "data-fact": name }, el("dt", {}, term), el("dd", {}, fact))));
}

function prompt(/** @type {any} */ { prompt_tokens, prompt_tokens_details: details }) {
  return details?.cached_tokens ? `${count(prompt_tokens)}, ${t("cached", { n: count(details.cached_tokens) })}` : count(prompt_tokens);
}
