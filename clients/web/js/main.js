/** The page: holds the conversation and lets the other modules know of each other. */

import { key, useKey, BASE } from "./server/api.js";
import { Attachment } from "./media/attachment.js";
import { chatBody } from "./server/request_body.js";
import { watchCamera } from "./media/camera.js";
import { ask } from "./server/chat.js";
import { showCode } from "./panel/code_dialog.js";
import { announce, byId, el } from "./page/dom.js";
import { plural } from "./page/format.js";
import { withoutTokens } from "./answer/grounding.js";
import { watchFiles } from "./media/file_input.js";
import { showNothing, showPreview, showProblem } from "./panel/preview_panel.js";
import { Previewer } from "./panel/preview_loader.js";
import { SUGGESTIONS } from "./media/examples.js";
import { Server } from "./server/state.js";
import { Settings } from "./panel/settings.js";
import { addToTray, removeFromTray } from "./media/attachment_tray.js";
import { addQuestion, Answer, clearTurns } from "./conversation/turns.js";

const question = byId("question");
const server = new Server();
const settings = new Settings(byId("settings"));
const previewer = new Previewer(draftBody, preview, previewFailed);
/** `{ role, text, attachments }` of all that was said. */
let turns = [];
/** Attachments of the next question. */
let draft = [];
/** The AbortController of the answer being written. */
let answering = null;

const mediaOf = (some) => some.flatMap(({ attachments = [] }) => attachments);

// The draft.

function take(files) {
  for (const file of files) {
    const attachment = new Attachment(file);
    draft.push(attachment);
    addToTray(attachment, { remove, retry: (each) => each.send() });
    let { state } = attachment;
    attachment.addEventListener("change", () => {
      if (attachment.state !== state) {
        state = attachment.state;
        draftChanged();
      }
      showCost();
    });
    attachment.send();
  }
  question.focus();
  draftChanged();
}

function remove(attachment) {
  draft = draft.filter((each) => each !== attachment);
  removeFromTray(attachment);
  attachment.discard();
  announce(`${attachment.name} removed.`);
  question.focus();
  draftChanged();
}

function draftChanged(how) {
  showCost();
  previewer.refresh(how);
}

function draftTurn() {
  return { role: "user", text: question.value.trim(), attachments: draft };
}

/** What would be asked now, or null where there is nothing to ask or something is still on its way. */
function draftBody() {
  const turn = draftTurn();
  if (!server.model || !(turn.text || draft.length) || !isComplete()) return null;
  return chatBody(server.model, [...turns, turn], settings.read());
}

const isComplete = () => draft.every(({ state }) => state === "ready");

function preview(told) {
  if (told) {
    const media = mediaOf([...turns, draftTurn()]);
    told.media.forEach((report, index) => media[index]?.told(report));
    showPreview(told, draft.length ? draft : lastMedia());
  } else if (!turns.length && !draft.length) {
    showNothing();
  }
  showCost(told);
}

/** The attachments of the last question that had any. */
function lastMedia() {
  return turns.findLast(({ attachments }) => attachments?.length)?.attachments ?? [];
}

/** A medium that cannot be used is told where it is; anything else, in the panel. */
function previewFailed(error) {
  const at = error.param?.match(/^messages\[(\d+)\]\.content\[(\d+)\]/);
  const numSystem = settings.read().system ? 1 : 0;
  const refused = at && Number(at[1]) - numSystem === turns.length ? draft[Number(at[2])] : null;
  if (refused) refused.refuse(error);
  else showProblem(error.message);
}

function showCost(told) {
  const failed = draft.some(({ state }) => state === "failed");
  const tokens = told ? plural(told.prompt_tokens, "token") : isComplete() ? byId("cost").value : "";
  byId("cost").value = failed ? "Remove what failed, or try it again" : isComplete() ? (draftBody() ? tokens : "") : "Uploading…";
  byId("send").disabled = answering !== null || draftBody() === null;
}

// The conversation.

async function submit() {
  if (byId("send").disabled || !settings.check()) return;
  const turn = draftTurn();
  turns.push(turn);
  addQuestion(turn);
  draft.forEach(removeFromTray);
  draft = [];
  question.value = "";
  byId("welcome").hidden = true;
  await answer();
}

async function answer() {
  const talk = turns; // another one, once the person has started anew
  const asked = [...talk];
  const body = chatBody(server.model, asked, settings.read());
  const view = new Answer();
  answering = new AbortController();
  setAnswering(true);
  try {
    for await (const { status, text, end } of ask(body, answering.signal)) {
      if (status) view.status(status);
      else if (text) view.add(text);
      else finish(view, end, asked, body);
    }
    keep(view, talk);
  } catch (error) {
    if (error.name === "AbortError") {
      view.stopped();
      keep(view, talk);
    } else {
      view.failed(error, answer);
      if (error.status === 401) askForKey();
    }
  }
  answering = null;
  setAnswering(false);
}

/** An answer becomes part of the conversation, unless it is empty. */
function keep({ raw }, talk) {
  if (raw) talk.push({ role: "assistant", text: withoutTokens(raw) });
}

function finish(view, end, asked, body) {
  const media = mediaOf(asked);
  end.media.forEach((report, index) => media[index].told(report));
  const pictures = lastMedia().filter(({ modality }) => modality === "image");
  const names = Object.fromEntries(media.map(({ id, name }) => [id, name]));
  view.finish(end, pictures, () => showCode(body, names));
}

function setAnswering(now) {
  const hadFocus = document.activeElement === byId(now ? "send" : "stop");
  byId("send").hidden = now;
  byId("stop").hidden = !now;
  if (hadFocus) byId(now ? "stop" : "send").focus();
  showCost();
}

function startAnew() {
  answering?.abort();
  for (const attachment of [...mediaOf(turns), ...draft]) {
    removeFromTray(attachment);
    attachment.discard();
  }
  turns = [];
  draft = [];
  clearTurns();
  byId("welcome").hidden = false;
  question.value = "";
  question.focus();
  draftChanged();
}

// The page around it.

function askForKey() {
  byId("connection").open = true;
  showPanel(true);
  byId("key").focus();
}

function showPanel(open) {
  document.body.classList.toggle("panel-open", open);
  byId("panel-toggle").setAttribute("aria-expanded", open);
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
question.addEventListener("input", () => draftChanged({ typing: true }));
byId("stop").addEventListener("click", () => answering?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (answering) answering.abort();
  else showPanel(false);
});
byId("new").addEventListener("click", startAnew);
byId("settings").addEventListener("input", () => draftChanged({ typing: true }));
byId("panel-toggle").addEventListener("click", () => showPanel(!document.body.classList.contains("panel-open")));
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
byId("key").value = key();
byId("key-form").addEventListener("submit", (event) => event.preventDefault());
byId("key").addEventListener("change", (event) => {
  useKey(event.target.value.trim());
  server.watch();
});
byId("base").textContent = BASE;
byId("suggestions").append(...SUGGESTIONS.map(({ label, question: text, file }) =>
  el("button", { type: "button", class: "suggestion", onclick: async () => {
    question.value = text;
    take(file ? [await file()] : []);
  } }, label)));
server.addEventListener("change", () => draftChanged());
server.addEventListener("locked", askForKey);
watchFiles(take);
watchCamera(take);
showCost();
server.watch();
