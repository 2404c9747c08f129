// @ts-check
/** Links in the question: a picture on the web that the server fetches itself. */

import { byId, el, icon } from "../page/dom.js";
import { t } from "../page/texts.js";

const LINK = /https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/i;

/**
 * Offer to load the first link of the question.
 * @param {any} question the field
 * @param {(url: string) => void} load
 */
export function watchLinks(question, load) {
  const offer = byId("link-offer");
  const update = () => {
    const [url] = LINK.exec(question.value) ?? [];
    offer.hidden = !url || !URL.canParse(url);
    if (offer.hidden || !url) return;
    const take = () => {
      question.value = question.value.replace(url, "").replace(/ {2,}/g, " ").trim();
      load(url);
      update();
    };
    offer.replaceChildren(el("button", { type: "button", class: "quiet", onclick: take }, icon("link"), el("span", {}, t("loadLink", { host: new URL(url).host }))));
  };
  question.addEventListener("input", update);
  return update;
}
