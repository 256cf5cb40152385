import { element, grouped, say } from "./elements.js";

/**
 * @typedef {object} Row
 * @property {string} key The same for the same thing, each time.
 * @property {boolean} isBad
 * @property {string[]} cells One text for each column but the last.
 * @property {Record<number, string>} titles Of some of them, more to know.
 * @property {() => HTMLElement[]} actions Makes what the last column has, once for each row.
 */

/**
 * A table whose rows come and go while someone reads it. A row stays the same element, so that a button keeps the
 * focus; and while the pointer or the focus is in the table nothing moves, so that nobody clicks on another row than
 * the one they mean.
 */
export class LiveTable {
  /** @type {Map<string, HTMLTableRowElement>} */
  #rows = new Map();

  /**
   * @param {HTMLElement} root With a table, and a part "total".
   * @param {string} empty What to say where there are no rows.
   */
  constructor(root, empty) {
    this.table = /** @type {HTMLTableElement} */ (root.querySelector("table"));
    this.body = this.table.tBodies[0];
    const head = /** @type {HTMLTableSectionElement} */ (this.table.tHead);
    this.labels = [...head.rows[0].cells].map((cell) => cell.textContent ?? "");
    this.total = /** @type {HTMLElement} */ (root.querySelector("[data-part=total]"));
    this.empty = empty;
  }

  /** @param {Row[]} rows @param {number} total How many there are, shown or not. */
  show(rows, total) {
    const isHeld = this.body.matches(":hover") || this.body.contains(document.activeElement);
    const gone = new Set(this.#rows.keys());
    rows.forEach((row, index) => {
      gone.delete(row.key);
      const known = this.#rows.get(row.key);
      const shown = known ?? this.#make(row);
      shown.classList.remove("is-gone");
      shown.classList.toggle("is-bad", row.isBad);
      row.cells.forEach((text, column) => {
        const cell = shown.cells[column];
        say(/** @type {Element} */ (cell.firstElementChild), text);
        cell.title = row.titles[column] ?? "";
      });
      if (isHeld && known) return;
      const there = this.body.rows[index];
      if (isHeld) this.body.append(shown);
      else if (there !== shown) this.body.insertBefore(shown, there ?? null);
    });
    for (const key of gone) {
      const row = /** @type {HTMLTableRowElement} */ (this.#rows.get(key));
      if (isHeld) {
        row.classList.add("is-gone");
        for (const button of row.querySelectorAll("button")) button.disabled = !row.contains(document.activeElement);
        continue;
      }
      row.remove();
      this.#rows.delete(key);
    }
    this.table.hidden = this.#rows.size === 0;
    const isAll = rows.length >= total;
    say(this.total, total === 0 ? this.empty : isAll ? grouped(total) : `${grouped(rows.length)} of ${grouped(total)}`);
  }

  /** @param {Row} row */
  #make(row) {
    const made = element("tr", "");
    row.cells.forEach((_, column) => {
      const cell = element(column === 0 ? "th" : "td", "");
      if (column === 0) cell.setAttribute("scope", "row");
      cell.dataset.label = this.labels[column];
      cell.append(element("bdi", ""));
      made.append(cell);
    });
    const last = element("td", "actions");
    last.append(...row.actions());
    made.append(last);
    this.#rows.set(row.key, made);
    return made;
  }
}
