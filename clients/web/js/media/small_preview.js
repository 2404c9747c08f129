// @ts-check
/** A small picture of a file, for conversations that are kept: some kilobytes of JPEG, as base64. */

const SIDE_PX = 320;
const QUALITY = 0.7;
const WAIT_MS = 10_000;

/** @returns {Promise<string | null>} null where the browser cannot show the file */
export async function previewOf(/** @type {File} */ file) {
  try {
    return file.type.startsWith("video/") ? await ofVideo(file) : await drawn(await createImageBitmap(file));
  } catch {
    return null;
  }
}

/** The JPEG of a preview. */
export function blobOf(/** @type {string} */ base64) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" });
}

async function ofVideo(/** @type {File} */ file) {
  const video = document.createElement("video");
  const url = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      video.addEventListener("loadeddata", resolve);
      video.addEventListener("error", reject);
      setTimeout(reject, WAIT_MS);
      Object.assign(video, { muted: true, preload: "auto", src: url });
    });
    return await drawn(video);
  } finally {
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(url);
  }
}

async function drawn(/** @type {ImageBitmap | HTMLVideoElement} */ source) {
  const [width, height] = source instanceof HTMLVideoElement ? [source.videoWidth, source.videoHeight] : [source.width, source.height];
  const scale = Math.min(1, SIDE_PX / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.fillStyle = "#fff"; // as for the model, what is transparent is white
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
  const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY })).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}
