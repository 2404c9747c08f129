// @ts-check
/** Asking: a streamed chat request, told step by step and timed as the person sees it. */

import { t } from "../page/texts.js";
import { ApiError, errorOf, request } from "./api.js";
import { events } from "./events.js";

/** @typedef {{ finish: string | null, usage: any, media: any[], firstMs: number | null, lastMs: number | null }} End */
/** @typedef {{ id: string, name: string, arguments: string }} Call */

/**
 * Yields `{ status }` (what the server says while it prepares media), `{ text }` (a piece of the answer), `{ calls }` (all
 * calls of functions so far), and at the end `{ end }`, with times since the request.
 * Raises ApiError, also for a failure in the middle of the answer.
 * @param {any} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<{ status?: string, text?: string, calls?: Call[], end?: End }>}
 */
export async function* ask(body, signal) {
  const startedMs = performance.now();
  /** @type {End} */
  const end = { finish: null, usage: null, media: [], firstMs: null, lastMs: null };
  /** @type {Call[]} */
  const calls = [];
  const streamed = { ...body, stream: true, stream_options: { include_usage: true }, include: ["media"] };
  const response = await request("/chat/completions", { body: streamed, signal });
  for await (const { data, comment } of unbroken(events(/** @type {ReadableStream} */ (response.body)))) {
    if (data === "[DONE]") {
      yield { end };
      return;
    }
    if (comment !== undefined) {
      if (comment !== "keep-alive") yield { status: comment };
      continue;
    }
    const chunk = JSON.parse(data);
    // The status is 200 by now; whose fault it was says the type.
    if (chunk.error) throw errorOf(chunk.error.type === "invalid_request_error" ? 400 : 500, data);
    end.usage = chunk.usage ?? end.usage;
    end.media = chunk.tessera?.media ?? end.media;
    const [choice] = chunk.choices;
    if (choice?.delta.content || choice?.delta.tool_calls) {
      end.lastMs = performance.now() - startedMs;
      end.firstMs ??= end.lastMs;
    }
    if (choice?.delta.content) yield { text: choice.delta.content };
    if (choice?.delta.tool_calls) {
      for (const piece of choice.delta.tool_calls) add(calls, piece);
      yield { calls: calls.map((call) => ({ ...call })) };
    }
    end.finish = choice?.finish_reason ?? end.finish;
  }
  throw new ApiError(t("brokeOff"));
}

/** Tokens a second after the first one; null where there are too few to tell. */
export function tokensPerSecond(/** @type {End} */ { usage, firstMs, lastMs }) {
  const rest = (usage?.completion_tokens ?? 0) - 1;
  return rest > 0 && lastMs !== null && firstMs !== null && lastMs > firstMs ? (rest / (lastMs - firstMs)) * 1000 : null;
}

function add(/** @type {Call[]} */ calls, /** @type {any} */ { index, id, function: piece }) {
  calls[index] ??= { id, name: piece?.name ?? "", arguments: "" };
  calls[index].arguments += piece?.arguments ?? "";
}

/** Browsers each have words of their own for a connection that broke. */
async function* unbroken(/** @type {AsyncGenerator<any>} */ stream) {
  try {
    yield* stream;
  } catch (error) {
    if (/** @type {Error} */ (error).name === "AbortError") throw error;
    throw new ApiError(t("brokeOff"));
  }
}
