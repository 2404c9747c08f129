// @ts-check
/** The page: lets the modules know of each other. */

import { translate, t } from "./page/texts.js";
import { byId } from "./page/dom.js";
import { showServer, showTitle } from "./page/header.js";
import { askForKey, keyIsRight, watchKey } from "./page/key_card.js";
import { watchPage } from "./page/around.js";
import { toast } from "./page/toast.js";
import { showExamples, showModel } from "./page/welcome.js";
import { BASE } from "./server/api.js";
import { chatBody, mediaOf } from "./server/request_body.js";
import { Server } from "./server/state.js";
import { watchCamera } from "./media/camera.js";
import { watchFiles } from "./media/file_input.js";
import { showCode } from "./panel/code_dialog.js";
import { fittingPixels } from "./panel/fitting.js";
import { PreviewLoader } from "./panel/preview_loader.js";
import { showNothing, showPreview, showProblem } from "./panel/preview_panel.js";
import { Settings } from "./panel/settings.js";
import { Archive, lastOpen, markOpen, recordOf, rememberDraft, rememberedDraft, revived } from "./conversation/archive.js";
import { openComparison } from "./conversation/comparison.js";
import { question, titleOf } from "./conversation/conversation.js";
import { Draft, hasOpenCalls, missingMedia, obstacle, showCost } from "./conversation/draft.js";
import { watchHistory } from "./conversation/history.js";
import { emptyConversation, Session } from "./conversation/session.js";
import { showTurns, showWriting } from "./conversation/turns.js";
import { sentence } from "./server/errors.js";

translate();
const field = byId("question");
const server = new Server();
const settings = new Settings(byId("settings"));
const session = new Session(() => ({ model: model(), settings: settings.read() }));
const draft = new Draft(() => server.models[0]?.limits ?? {});
const archive = new Archive();
const previews = new PreviewLoader(previewBody, previewed, previewFailed);
/** The model that the person chose, which may be gone. @type {string | null} */
let chosenModel = null;
/** What the server says of the prompt as it is now, once it has. @type {any} */
let told = null;
/** Whether a question waits for the server to come back. */
let waiting = false;
/** What was being written when an example was asked. @type {{ text: string, attachments: any[] } | null} */
let aside = null;

/** The model to ask: the chosen one as long as it is there. */
function model() {
  return (server.models.find(({ id }) => id === chosenModel) ?? server.models[0])?.id ?? null;
}

// What will be asked, and what the server says of it.

/** The draft as a turn, behind the conversation. */
function turnsWithDraft() {
  return draft.isEmpty ? session.turns : [...session.turns, question(draft.text, draft.attachments)];
}

function previewBody() {
  const name = model();
  const turns = turnsWithDraft();
  const reason = obstacle({ draft, turns: session.turns, server, told: null });
  const isAnswering = session.running && draft.isEmpty;
  if (!name || !turns.some(({ failed }) => !failed) || isAnswering || (reason && !(draft.isEmpty && server.state === "ready" && !reason.bad)) || hasOpenCalls(session.turns)) return null;
  return chatBody(name, turns, settings.read());
}

function previewed(/** @type {any} */ seen) {
  told = seen;
  if (seen) {
    const media = mediaOf(turnsWithDraft());
    seen.media.forEach((/** @type {any} */ report, /** @type {number} */ index) => media[index]?.told(report));
    const last = session.turns.findLast(({ attachments, failed }) => attachments.length && !failed);
    showPreview(seen, draft.attachments.length ? draft.attachments : (last?.attachments ?? []), { draft: !draft.isEmpty });
  } else if (!session.turns.length && draft.isEmpty) {
    showNothing();
  }
  showState();
}

/** What cannot be used is told where it is; anything else, in the panel. */
async function previewFailed(/** @type {any} */ error) {
  const turns = turnsWithDraft();
  const values = settings.read();
  if (await session.renew(error, turns, values)) return previews.refresh();
  const at = /^messages\[(\d+)\]\.content\[(\d+)\]/.exec(error.param ?? "");
  const messages = chatBody("", turns, values).messages;
  const refused = at && Number(at[1]) === messages.length - 1 && !draft.isEmpty ? draft.attachments[Number(at[2])] : null;
  told = null;
  if (refused && !error.mayPass && refused.state === "ready") refused.refuse(error);
  else if (!refused) showProblem(sentence(error));
  if (error.mayPass) server.doubt(error);
  showState();
}

function showState() {
  const reason = obstacle({ draft, turns: session.turns, server, told: draft.isEmpty ? null : told });
  const media = mediaOf(turnsWithDraft()).map(({ report }) => report).filter(Boolean);
  const pixels = reason?.over ? fittingPixels(told, media) : null;
  showCost(waiting && reason?.waits ? { text: t("willBeSent") } : reason, told, { pixels, fit: () => settings.set("max_pixels", String(pixels)) });
  byId("send").disabled = session.running || (reason !== null && !reason.waits);
  byId("send").hidden = session.running;
  byId("stop").hidden = !session.running;
  const changed = settings.numChanged;
  byId("settings-changed").textContent = changed ? t("numChanged", { n: changed }) : "";
}

function changed(/** @type {{ typing?: boolean, same?: boolean }} */ { typing = false, same = false } = {}) {
  if (!same) {
    if (!typing) told = null;
    previews.refresh({ typing });
  }
  showState();
  keep();
}

/** The conversation that is open, as it is kept. */
function record() {
  return recordOf(session.current, draft, { model: chosenModel, fields: settings.read().fields });
}

function keep() {
  if (session.turns.length || !draft.isEmpty) markOpen(session.current.id);
  archive.soon(record);
}

// What the person does.

async function submit() {
  if (byId("send").disabled || byId("send").hidden || !settings.check()) return;
  const reason = obstacle({ draft, turns: session.turns, server, told });
  if (reason) {
    waiting = Boolean(reason.waits);
    return showState();
  }
  waiting = false;
  const { text, attachments } = draft.empty();
  if (aside) draft.put(aside);
  aside = null;
  await session.ask(text || t("describeThis"), attachments);
}

const actions = {
  edit: (/** @type {any} */ turn) => undoable(t("editing"), () => {
    session.stop();
    session.cutFrom(turn);
    draft.put({ text: turn.text, attachments: turn.attachments });
    field.focus();
  }, session.isLast(turn) && draft.isEmpty),
  remove: (/** @type {any} */ turn) => undoable(t("questionRemoved"), () => session.remove(turn)),
  again: (/** @type {any} */ turn) => isWhole() && undoable(t("askedAgain"), () => session.again(turn)),
  retry: (/** @type {any} */ turn) => isWhole(turn) && session.retry(turn),
  goOn: (/** @type {any} */ turn) => isWhole() && session.goOn(turn),
  keepOnly: (/** @type {any} */ turn, /** @type {any} */ answer) => undoable(t("keptOne"), () => session.keepOnly(turn, answer)),
  giveResults: (/** @type {any} */ results) => isWhole() && session.giveResults(results),
  compare: (/** @type {any} */ turn) => isWhole() && openComparison(turn.answers[turn.chosen], server.models.map(({ id }) => id), (name, values) => session.compare(turn, name, values)),
  pictures: (/** @type {any} */ turn) => {
    const asked = session.before(turn).findLast(({ attachments }) => attachments.length);
    return (asked?.attachments ?? []).filter(({ modality, report, url }) => modality === "image" && report && url);
  },
  showCode: (/** @type {any} */ turn, /** @type {any} */ answer) => showCode(session.bodyOf(turn, answer), mediaOf(session.before(turn))),
};

/** Whether the conversation, with this failed turn of it, can be sent as it is; where not, a toast says why. */
function isWhole(/** @type {any} */ failed = { attachments: [] }) {
  const missing = missingMedia([...session.turns, { attachments: failed.attachments }]);
  if (missing) toast(missing.text);
  return !missing;
}

/** Do something that takes away, with a way back; `silent` where nothing is lost. */
function undoable(/** @type {string} */ text, /** @type {() => void} */ act, silent = false) {
  const restore = session.snapshot();
  const conversation = session.current;
  const written = { text: field.value, attachments: draft.attachments };
  const media = allMedia();
  act();
  const undo = () => {
    if (session.current !== conversation) return;
    restore();
    draft.put(written);
  };
  const done = () => {
    if (session.current !== conversation) return; // their uploads live a day
    const used = new Set(allMedia());
    for (const attachment of media) if (!used.has(attachment)) attachment.discard();
  };
  if (!silent) toast(text, { undo, done });
}

/** What is attached anywhere in the conversation and the draft. */
const allMedia = () => [...session.turns, draft].flatMap(({ attachments }) => attachments);

function open(/** @type {any} */ kept) {
  archive.now(record());
  waiting = false;
  const { conversation, draft: written, model: name, fields } = revived(kept);
  chosenModel = name ?? chosenModel;
  if (fields) settings.write(fields);
  session.open(conversation);
  draft.put(written);
  showServer(server, model());
  field.focus();
}

/** Bring back what this tab had open, unless the person has begun something else by the time it is there. */
async function reopen() {
  const last = await lastOpen();
  if (!last || session.turns.length || !draft.isEmpty) return;
  open(last);
  draft.put({ text: rememberedDraft(last.id) ?? draft.text, attachments: draft.attachments });
}

function startAnew() {
  archive.now(record());
  waiting = false;
  session.open(emptyConversation());
  draft.put({ text: "", attachments: [] });
  field.focus();
}

/** Ask an example; what was being written comes back afterwards. */
function askExample(/** @type {string} */ text, /** @type {File[]} */ files) {
  aside = draft.isEmpty ? aside : draft.empty();
  draft.put({ text, attachments: [] });
  draft.take(files);
  waiting = true; // for the upload, and for the server
  showState();
}

// What happens.

session.addEventListener("change", (event) => {
  const { detail: conversation } = /** @type {CustomEvent} */ (event);
  const hadFocus = document.activeElement === byId("send") || document.activeElement === byId("stop");
  if (conversation === session.current) {
    showTurns(session.turns, actions, session.running);
    byId("welcome").hidden = session.turns.length > 0;
    showTitle(conversation.named ? conversation.title : titleOf(session.turns), model());
    changed();
    archive.flush(); // what was asked or answered is not left to a timer
    if (hadFocus) (session.running ? byId("stop") : byId("send").disabled ? field : byId("send")).focus();
  } else {
    archive.now(recordOf(conversation, { text: "", attachments: [] }, { model: chosenModel, fields: settings.read().fields }));
  }
});
session.addEventListener("writing", (event) => {
  const { answer, status } = /** @type {CustomEvent} */ (event).detail;
  showWriting(answer, status);
  keep();
});
session.addEventListener("failure", (event) => server.doubt(/** @type {CustomEvent} */ (event).detail));
session.addEventListener("media", (event) => {
  changed(/** @type {CustomEvent} */ (event).detail); // one that was lost may be there again
  sendWhatWaits();
});
draft.addEventListener("change", (event) => {
  changed(/** @type {CustomEvent} */ (event).detail);
  sendWhatWaits();
});
server.addEventListener("change", () => {
  showServer(server, model());
  showModel(server.models[0]);
  showTitle(session.current.named ? session.current.title : titleOf(session.turns), model());
  if (server.state === "locked") askForKey(server.wrongKey);
  if (server.state === "ready") {
    keyIsRight();
    for (const attachment of draft.attachments) if (attachment.mayPass) attachment.send();
  }
  byId("welcome").classList.toggle("locked", server.state === "locked");
  changed();
  sendWhatWaits();
});

/** What waited for the server, or for its own upload. */
function sendWhatWaits() {
  if (!waiting || session.running || draft.isEmpty) return;
  const reason = obstacle({ draft, turns: session.turns, server, told: null });
  if (reason?.bad) waiting = false;
  else if (!reason) submit();
}

byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  submit();
});
byId("settings").addEventListener("input", () => changed({ typing: true }));
byId("model-select").addEventListener("change", (/** @type {any} */ { target }) => {
  chosenModel = target.value;
  showServer(server, model());
  changed();
});
watchPage({
  submit,
  stop: () => {
    if (!waiting && !session.running) return false;
    waiting = false;
    session.stop();
    showState();
    return true;
  },
  startAnew,
  lastQuestion: () => session.turns.findLast(({ role }) => role === "user")?.text ?? "",
});
watchHistory({
  currentId: () => session.current.id,
  flush: () => archive.flush(),
  open,
  renamed: (id, title) => id === session.current.id && Object.assign(session.current, { title, named: true }) && showTitle(title, model()),
  gone: (id) => id === session.current.id && (session.open(emptyConversation()), draft.put({ text: "", attachments: [] })),
});
watchKey(async () => {
  await server.tryKey();
  if (server.state === "locked") askForKey(true);
});
watchFiles((files) => draft.take(files));
watchCamera((/** @type {File[]} */ files) => draft.take(files));
byId("base").textContent = BASE;
byId("api-document").href = new URL("openapi.json", document.baseURI).href;
showExamples(askExample);
server.watch();
showState();
await reopen(); // until then, what the tab remembers is not overwritten
window.addEventListener("pagehide", () => rememberDraft(session.current.id, field.value));
