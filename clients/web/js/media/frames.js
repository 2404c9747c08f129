// @ts-check
/** The frames of a video at given times, as the browser decodes them. */

/**
 * Yields for each time (in seconds) something that can be drawn; raises where the browser cannot decode the video.
 * What was yielded before is no longer valid.
 */
export async function* framesAt(/** @type {any} */ attachment, /** @type {number[]} */ times) {
  if (attachment.file.type.startsWith("image/")) yield* animationFrames(attachment.file, times);
  else yield* videoFrames(attachment.url, times);
}

async function* videoFrames(url, times) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, preload: "auto", src: url });
  try {
    await happens(video, "loadeddata");
    for (const time of times) {
      // A little later than the frame begins, since a seek to its very beginning may show the one before.
      video.currentTime = time + 0.001;
      await happens(video, "seeked");
      yield video;
    }
  } finally {
    video.removeAttribute("src");
    video.load();
  }
}

/** Of an animated GIF, WebP or PNG. */
async function* animationFrames(file, times) {
  const decoder = new ImageDecoder({ type: file.type, data: await file.arrayBuffer() });
  /** @type {any} */
  let image = null;
  try {
    await decoder.tracks.ready;
    const number = decoder.tracks.selectedTrack?.frameCount ?? 0;
    let next = 0;
    for (const time of times) {
      while (next < number && (image === null || image.timestamp + image.duration <= time * 1e6)) {
        image?.close();
        ({ image } = await decoder.decode({ frameIndex: next++ }));
      }
      yield image;
    }
  } finally {
    image?.close();
    decoder.close();
  }
}

function happens(video, name) {
  return new Promise((resolve, reject) => {
    video.addEventListener(name, resolve, { once: true });
    video.addEventListener("error", () => reject(new Error("This browser cannot decode the video.")), { once: true });
  });
}
