// @ts-check
/** The dialog of the camera: a picture or a video of what it sees. */

import { byId } from "../page/dom.js";
import { t } from "../page/texts.js";

const MAX_VIDEO_S = 30;
const FORMATS = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];

const dialog = byId("camera-dialog");
const view = byId("camera-view");
const record = byId("camera-record");
/** @type {MediaStream | null} */
let stream = null;
/** @type {MediaRecorder | null} */
let recorder = null;

/** Let the button open the dialog; `take` gets what was taken, as a list of one file. */
export function watchCamera(/** @type {(files: File[]) => void} */ take) {
  byId("camera").addEventListener("click", open);
  byId("camera-shoot").addEventListener("click", async () => done(take, await picture()));
  record.addEventListener("click", async () => {
    if (recorder) recorder.stop();
    else done(take, await video());
  });
  dialog.addEventListener("close", close);
}

async function open() {
  tell("");
  dialog.showModal();
  try {
    if (!navigator.mediaDevices) throw new Error(t("cameraNeedsHttps"));
    const opened = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    if (!dialog.open) return opened.getTracks().forEach((track) => track.stop());
    stream = opened;
    view.srcObject = stream;
    await view.play();
    ready(true);
  } catch (caught) {
    const error = /** @type {Error} */ (caught);
    ready(false);
    tell(error.name === "NotAllowedError" ? t("cameraRefused") : error.name === "NotFoundError" ? t("noCamera") : error.message);
  }
}

function done(/** @type {(files: File[]) => void} */ take, /** @type {File | null} */ file) {
  if (!file) return;
  dialog.close();
  take([file]);
}

async function picture() {
  const canvas = new OffscreenCanvas(view.videoWidth, view.videoHeight);
  canvas.getContext("2d")?.drawImage(view, 0, 0);
  return new File([await canvas.convertToBlob({ type: "image/png" })], name("png"), { type: "image/png" });
}

/** What is recorded until the button is pressed again; null where the dialog was closed instead. */
function video() {
  const format = FORMATS.find((each) => MediaRecorder.isTypeSupported(each)) ?? "video/webm";
  const type = format.split(";")[0];
  const pieces = [];
  const startedMs = performance.now();
  const recording = new MediaRecorder(/** @type {MediaStream} */ (stream), { mimeType: format });
  recorder = recording;
  recording.addEventListener("dataavailable", ({ data }) => pieces.push(data));
  const timer = setInterval(() => {
    const seconds = (performance.now() - startedMs) / 1000;
    tell(t("recording", { n: seconds.toFixed(0) }));
    if (seconds >= MAX_VIDEO_S) recorder?.stop();
  }, 250);
  record.textContent = t("stopRecording");
  return new Promise((resolve) => {
    recording.addEventListener("stop", () => {
      clearInterval(timer);
      recorder = null;
      record.textContent = t("record");
      resolve(dialog.open ? new File(pieces, name(type.slice(6)), { type }) : null);
    });
    recording.start();
  });
}

function close() {
  recorder?.stop();
  stream?.getTracks().forEach((track) => track.stop());
  stream = view.srcObject = null;
  ready(false);
}

function ready(/** @type {boolean} */ can) {
  byId("camera-shoot").disabled = record.disabled = !can;
}

function tell(/** @type {string} */ text) {
  byId("camera-hint").textContent = text;
}

const name = (/** @type {string} */ ending) => `camera-${new Date().toISOString().slice(0, 19).replaceAll(/[T:]/g, "-")}.${ending}`;
