/** Making and finding elements. Texts become text nodes, never HTML: names and data are other people's. */

/** @param {string} id @returns {any} An element of the page, of the kind that it has in index.html. */
export function get(id) {
  return document.getElementById(id);
}

/**
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name @param {string} className @param {string} [text]
 */
export function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/**
 * Set an element's text, only where it is another: a live region would else be read again.
 * @param {Element} where
 * @param {string} text
 */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

const numbers = new Intl.NumberFormat("en");

/** @param {number} count */
export function grouped(count) {
  return numbers.format(count);
}

/** @param {number} count @param {string} one @param {string} many */
export function counted(count, one, many = `${one}s`) {
  return `${grouped(count)} ${count === 1 ? one : many}`;
}

/** @param {unknown} error */
export function reason(error) {
  return error instanceof Error ? error.message : String(error);
}
