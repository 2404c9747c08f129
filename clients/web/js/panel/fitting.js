// @ts-check
/** Making a prompt fit: the limit of pixels with which its media leave room. Pure. */

const PIXELS_A_TOKEN = 784;
/** Room left for an answer. */
const ANSWER_TOKENS = 256;

/**
 * @param {{ prompt_tokens: number, max_model_len: number }} told of the prompt, from a preview.
 * @param {{ tokens: number, grid: number[] }[]} reports of its media.
 * @returns {number | null} the largest limit with which the prompt fits, in pixels; null where no limit helps.
 */
export function fittingPixels({ prompt_tokens, max_model_len }, reports) {
  const mediaTokens = reports.reduce((sum, { tokens }) => sum + tokens, 0);
  const room = max_model_len - ANSWER_TOKENS - (prompt_tokens - mediaTokens);
  const slices = reports.map(({ grid, tokens }) => ({ tokens, num: grid[0] }));
  const needed = (/** @type {number} */ each) => slices.reduce((sum, { tokens, num }) => sum + Math.min(tokens, each * num), 0);
  let low = 0;
  let high = Math.max(0, ...slices.map(({ tokens, num }) => Math.ceil(tokens / num)));
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (needed(middle) <= room) low = middle;
    else high = middle - 1;
  }
  return low >= 4 ? low * PIXELS_A_TOKEN : null; // less than four tokens a picture shows nothing
}
