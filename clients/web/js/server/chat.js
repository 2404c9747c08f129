/** Asking: a streamed chat request, told step by step and timed as the person sees it. */

import { ApiError, errorOf, request } from "./api.js";
import { events } from "./events.js";

/**
 * Yields `{ status }` (what the server says while it prepares media), `{ text }` (a piece of the answer), and at the end
 * `{ end }`: `{ finish, usage, media, firstMs, lastMs }`, times since the request.
 * Raises ApiError, also for a failure in the middle of the answer.
 */
export async function* ask(body, signal) {
  const startedMs = performance.now();
  const end = { finish: null, usage: null, media: [], firstMs: null, lastMs: null };
  const streamed = { ...body, stream: true, stream_options: { include_usage: true }, include: ["media"] };
  const response = await request("/chat/completions", { body: streamed, signal });
  for await (const { data, comment } of events(response.body)) {
    if (data === "[DONE]") {
      yield { end };
      return;
    }
    if (comment !== undefined) {
      if (comment !== "keep-alive") yield { status: comment };
      continue;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw errorOf(response.status, data);
    end.usage = chunk.usage ?? end.usage;
    end.media = chunk.tessera?.media ?? end.media;
    const [choice] = chunk.choices;
    if (choice?.delta.content) {
      end.lastMs = performance.now() - startedMs;
      end.firstMs ??= end.lastMs;
      yield { text: choice.delta.content };
    }
    end.finish = choice?.finish_reason ?? end.finish;
  }
  throw new ApiError("The connection was lost in the middle of the answer.");
}

/** Tokens a second after the first one; null where there are too few to tell. */
export function tokensPerSecond({ usage, firstMs, lastMs }) {
  const rest = (usage?.completion_tokens ?? 0) - 1;
  return rest > 0 && lastMs > firstMs ? (rest / (lastMs - firstMs)) * 1000 : null;
}
