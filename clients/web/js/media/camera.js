/** The dialog of the camera: a picture or a clip of what it sees. */

import { byId } from "../page/dom.js";

const MAX_CLIP_S = 30;
const FORMATS = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];

const dialog = byId("camera-dialog");
const view = byId("camera-view");
const record = byId("camera-record");
let stream = null;
let recorder = null;

/** Let the button open the dialog; `take` gets what was taken, as a list of one file. */
export function watchCamera(take) {
  byId("camera").addEventListener("click", open);
  byId("camera-shoot").addEventListener("click", async () => done(take, await picture()));
  record.addEventListener("click", async () => {
    if (recorder) recorder.stop();
    else done(take, await clip());
  });
  dialog.addEventListener("close", close);
}

async function open() {
  tell("");
  dialog.showModal();
  try {
    if (!navigator.mediaDevices) throw new Error("Browsers show cameras to pages of this machine or of HTTPS only.");
    const opened = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    if (!dialog.open) return opened.getTracks().forEach((track) => track.stop());
    stream = opened;
    view.srcObject = stream;
    await view.play();
    ready(true);
  } catch (error) {
    ready(false);
    tell(error.name === "NotAllowedError" ? "The camera was not allowed." : error.name === "NotFoundError" ? "There is no camera." : error.message);
  }
}

function done(take, file) {
  if (!file) return;
  dialog.close();
  take([file]);
}

async function picture() {
  const canvas = new OffscreenCanvas(view.videoWidth, view.videoHeight);
  canvas.getContext("2d").drawImage(view, 0, 0);
  return new File([await canvas.convertToBlob({ type: "image/png" })], name("png"), { type: "image/png" });
}

/** What is recorded until the button is pressed again; null where the dialog was closed instead. */
function clip() {
  const format = FORMATS.find((each) => MediaRecorder.isTypeSupported(each));
  const type = format.split(";")[0];
  const pieces = [];
  const startedMs = performance.now();
  recorder = new MediaRecorder(stream, { mimeType: format });
  recorder.addEventListener("dataavailable", ({ data }) => pieces.push(data));
  const timer = setInterval(() => {
    const seconds = (performance.now() - startedMs) / 1000;
    tell(`Recording, ${seconds.toFixed(0)} s`);
    if (seconds >= MAX_CLIP_S) recorder?.stop();
  }, 250);
  record.textContent = "Stop recording";
  return new Promise((resolve) => {
    recorder.addEventListener("stop", () => {
      clearInterval(timer);
      recorder = null;
      record.textContent = "Record a clip";
      resolve(dialog.open ? new File(pieces, name(type.slice(6)), { type }) : null);
    });
    recorder.start();
  });
}

function close() {
  recorder?.stop();
  stream?.getTracks().forEach((track) => track.stop());
  stream = view.srcObject = null;
  ready(false);
}

function ready(can) {
  byId("camera-shoot").disabled = record.disabled = !can;
}

function tell(text) {
  byId("camera-hint").textContent = text;
}

const name = (ending) => `camera-${new Date().toISOString().slice(0, 19).replaceAll(/[T:]/g, "-")}.${ending}`;
