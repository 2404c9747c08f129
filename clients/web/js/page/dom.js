// @ts-check
/** Making and finding elements. Both give `any`: which element it is, the page and the tag say. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `el("button", { class: "quiet", onclick: send }, "Send")`.
 * Attributes that are false, null or undefined are left out; true makes an empty one; functions listen.
 * @param {string} tag
 * @param {Record<string, any>} attributes
 * @param {any[]} children
 * @returns {any}
 */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * The same for SVG.
 * @param {string} tag
 * @param {Record<string, any>} attributes
 * @param {any[]} children
 * @returns {any}
 */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** One of the page's icons. */
export function icon(/** @type {string} */ name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#icon-${name}` }));
}

/** A button that looks like a link; `extra` may hold further attributes. */
export function link(/** @type {string} */ text, /** @type {(event: any) => void} */ onclick, extra = {}) {
  return el("button", { type: "button", class: "link", onclick, ...extra }, text);
}

/**
 * The element of that id; it is in the page.
 * @param {string} id
 * @returns {any}
 */
export const byId = (id) => document.getElementById(id);

/** Tell people who listen instead of looking. */
export function announce(/** @type {string} */ text) {
  byId("announcer").textContent = text;
}

/** Give the person a file. */
export function save(/** @type {string} */ name, /** @type {Blob} */ content) {
  const url = URL.createObjectURL(content);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function filled(/** @type {Element} */ element, /** @type {Record<string, any>} */ attributes, /** @type {any[]} */ children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}
