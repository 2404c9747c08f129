/** Numbers for people. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 20480 → "20,480". */
export const count = (number) => whole.format(number);

/** A count with its noun: `plural(1, "token")` → "1 token". */
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Milliseconds: "83 ms", "1.24 s". */
export const duration = (ms) => (ms < 1000 ? `${whole.format(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);

/** Seconds in a clip: "0:03.5"; the fraction only where there is one. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const rest = (tenths % 600) / 10;
  const shown = Number.isInteger(rest) ? String(rest).padStart(2, "0") : rest.toFixed(1).padStart(4, "0");
  return `${Math.floor(tenths / 600)}:${shown}`;
}

/** Bytes: "312 KB", "4.2 MB". */
export const bytes = (number) =>
  number < 1e6 ? `${whole.format(Math.max(1, number / 1e3))} KB` : `${(number / 1e6).toFixed(1)} MB`;

/** { width, height } → "640 × 480". */
export const pixels = ({ width, height }) => `${width} × ${height}`;
