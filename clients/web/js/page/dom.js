/** Making elements. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `el("button", { class: "quiet", onclick: send }, "Send")`.
 * Attributes that are false, null or undefined are left out; true makes an empty one; functions listen.
 */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** One of the page's icons. */
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#icon-${name}` }));
}

/** The element of that id; it is in the page. */
export const byId = (id) => document.getElementById(id);

/** Tell people who listen instead of looking. */
export function announce(text) {
  byId("announcer").textContent = text;
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}
