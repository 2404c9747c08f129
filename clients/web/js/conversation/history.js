// @ts-check
/** The list of conversations in this browser: find, open, rename, delete with a way back, save as a file and read one. */

import { byId, el, icon, save } from "../page/dom.js";
import { moment } from "../page/format.js";
import { t } from "../page/texts.js";
import { toast } from "../page/toast.js";
import { forget } from "../server/api.js";
import { exported, imported } from "./conversation.js";
import { all, put, remove } from "./store.js";

const dialog = byId("history");
const list = byId("history-list");
const search = byId("history-search");

/**
 * @param {{ currentId: () => string, flush: () => Promise<void>, open: (record: any) => void, renamed: (id: string, title: string) => void, gone: (id: string) => void }} page
 */
export function watchHistory(page) {
  const draw = async () => {
    await page.flush();
    const records = (await all()).filter((record) => matches(record, search.value));
    list.replaceChildren(...records.map((record) => entry(record, page, draw)));
    byId("history-none").hidden = records.length > 0;
  };
  byId("history-open").addEventListener("click", () => {
    search.value = "";
    dialog.showModal();
    draw();
  });
  search.addEventListener("input", draw);
  byId("history-import").addEventListener("click", () => byId("history-file").click());
  byId("history-file").addEventListener("change", async (/** @type {any} */ { target }) => {
    const [file] = target.files;
    target.value = "";
    const record = file && imported(await file.text());
    if (!record) return toast(t("noConversation"));
    await put(record).catch(() => toast(t("notKept")));
    dialog.close();
    page.open(record);
  });
}

const matches = (/** @type {any} */ record, /** @type {string} */ words) => !words.trim() || textOf(record).toLowerCase().includes(words.trim().toLowerCase());

const textOf = (/** @type {any} */ { title, turns }) =>
  [title, ...turns.flatMap((/** @type {any} */ { text, answers }) => [text, ...answers.map((/** @type {any} */ each) => each.raw)])].join("\n");

function entry(/** @type {any} */ record, /** @type {any} */ page, /** @type {() => void} */ draw) {
  const { id, title, changedMs, turns } = record;
  const name = title || t("unnamed");
  const questions = turns.filter((/** @type {any} */ { role }) => role === "user").length;
  const preview = turns.flatMap((/** @type {any} */ turn) => turn.attachments).find((/** @type {any} */ each) => each.preview);
  const button = (/** @type {string} */ sign, /** @type {string} */ label, /** @type {() => void} */ onclick) =>
    el("button", { type: "button", class: "round small", "aria-label": label, title: label, onclick }, icon(sign));
  const item = el("li", { "aria-current": id === page.currentId() && "true" },
    el("button", { type: "button", class: "open", onclick: () => { dialog.close(); page.open(record); } },
      el("b", {}, name), el("span", { class: "hint" }, `${moment(changedMs)} · ${t("numQuestions", { n: questions })}${preview ? ` · ${preview.name}` : ""}`)),
    button("edit", t("renameNamed", { name }), () => rename(item, record, page, draw)),
    button("save", t("saveNamed", { name }), () => save(`${name.replace(/[^\p{L}\p{N} _-]/gu, "").trim().slice(0, 40) || "conversation"}.json`, exported(record))),
    button("delete", t("deleteNamed", { name }), async () => {
      await remove(id);
      page.gone(id);
      draw();
      const undo = async () => {
        await put(record);
        if (dialog.open) draw();
        else page.open(record);
      };
      toast(t("deleted", { name }), { undo, done: () => forgetUploads(record) });
    }));
  return item;
}

/** Have the server forget the files that only this conversation had. */
async function forgetUploads(/** @type {any} */ record) {
  const kept = new Set((await all()).flatMap(uploads)); // copies and read files share them
  uploads(record).filter((/** @type {string} */ id) => !kept.has(id)).forEach(forget);
}

/** Ids of a conversation's files on the server. */
const uploads = (/** @type {any} */ { turns, draft }) =>
  [...turns, draft ?? { attachments: [] }].flatMap((/** @type {any} */ { attachments }) => attachments.map((/** @type {any} */ { source }) => source?.file_id).filter(Boolean));

function rename(/** @type {any} */ item, /** @type {any} */ record, /** @type {any} */ page, /** @type {() => void} */ draw) {
  const field = el("input", { value: record.title, "aria-label": t("title"), maxlength: 120 });
  const finish = async (/** @type {any} */ event) => {
    event.preventDefault();
    const title = field.value.trim() || record.title;
    await put({ ...record, title, named: true });
    page.renamed(record.id, title);
    draw();
  };
  item.replaceChildren(el("form", { class: "rename", onsubmit: finish }, field, el("button", { type: "submit", class: "solid" }, t("rename"))));
  field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    draw();
  });
  field.focus();
  field.select();
}
