// @ts-check
/** Server-sent events, as this API sends them: one `data:` line or one comment per event. */

/** Yields `{ data }` and `{ comment }`, each a string, as they arrive. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line.startsWith("data: ")) yield { data: line.slice(6) };
        else if (line.startsWith(": ")) yield { comment: line.slice(2) };
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
