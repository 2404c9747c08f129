// @ts-check
/** Numbers for people. */

import { counted, language } from "./texts.js";

const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });

/** 20480 → "20,480". */
export const count = (/** @type {number} */ number) => whole.format(number);

/** "1 token", "81 tokens". */
export const tokens = (/** @type {number} */ number) => counted("token", "tokens", number, count(number));

/** Milliseconds: "83 ms", "1.24 s". */
export const duration = (/** @type {number} */ ms) => (ms < 1000 ? `${whole.format(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);

/** Seconds in a video: "0.6 s", and from a minute on "1:03.5". */
export function clock(/** @type {number} */ seconds) {
  const tenths = Math.round(seconds * 10);
  if (tenths < 600) return `${tenths / 10} s`;
  const rest = (tenths % 600) / 10;
  const shown = Number.isInteger(rest) ? String(rest).padStart(2, "0") : rest.toFixed(1).padStart(4, "0");
  return `${Math.floor(tenths / 600)}:${shown}`;
}

/** Bytes: "312 KB", "4.2 MB"; a limit of 32 << 20 is "32 MB", as its owner meant it. */
export function bytes(/** @type {number} */ number) {
  if (number >= 1 << 20 && number % (1 << 20) === 0) return `${count(number >> 20)} MB`;
  return number < 1e6 ? `${whole.format(Math.max(1, number / 1e3))} KB` : `${tenth.format(number / 1e6)} MB`;
}

/** { width, height } → "640 × 480". */
export const pixels = (/** @type {{ width: number, height: number }} */ { width, height }) => `${width} × ${height}`;

/** When: the time of today, or the day. */
export function moment(/** @type {number} */ ms) {
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString(language, { hour: "2-digit", minute: "2-digit" }) : date.toLocaleDateString(language, { day: "numeric", month: "short" });
}
