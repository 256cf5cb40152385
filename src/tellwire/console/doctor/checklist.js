import { element } from "../elements.js";

/** @typedef {"waiting" | "running" | "good" | "fair" | "bad" | "unknown"} RowState */

const SVG = "http://www.w3.org/2000/svg";

/** How the states are called where colours and shapes are not seen. @type {Record<RowState, string>} */
const SPOKEN = {
  waiting: "not yet looked at",
  running: "being looked at",
  good: "good",
  fair: "fair",
  bad: "bad",
  unknown: "not known",
};

/** One thing that is looked at: its name, what was found, and how long it took. */
export class Row {
  #found = element("span", "found");
  #took = element("span", "took");
  #state = element("span", "hidden");
  /** @type {SVGElement | undefined} */
  #arrivals;

  /** @param {HTMLElement} list @param {string} key @param {string} name */
  constructor(list, key, name) {
    this.root = element("li", "check-row");
    this.root.dataset.check = key;
    this.root.append(element("span", "name", name), this.#found, this.#took, this.#state);
    list.append(this.root);
    this.show("waiting", "");
  }

  /** @param {RowState} state @param {string} found @param {string} [took] */
  show(state, found, took = "") {
    this.root.dataset.state = state;
    this.#found.textContent = found;
    this.#took.textContent = took;
    this.#state.textContent = SPOKEN[state];
  }

  /**
   * Draw when messages were sent, and when they came.
   * @param {import("./arrivals.js").Sent[]} sent
   */
  draw(sent) {
    this.#arrivals?.remove();
    if (sent.length < 2) return;
    const times = sent.flatMap(({ acked_ms, came_ms }) => [acked_ms, came_ms ?? acked_ms]);
    const [first, last] = [Math.min(...times), Math.max(...times)];
    const at = (/** @type {number} */ time) => `${2 + (96 * (time - first)) / Math.max(1, last - first)}%`;
    this.#arrivals = make("svg", { class: "arrivals", "aria-hidden": "true" });
    this.#arrivals.append(make("line", { x1: "0", x2: "100%", y1: "10", y2: "10" }));
    for (const { acked_ms, came_ms } of sent) {
      this.#arrivals.append(make("circle", { class: "sent", cx: at(acked_ms), cy: "10", r: "6" }));
      if (came_ms !== undefined) this.#arrivals.append(make("circle", { cx: at(came_ms), cy: "10", r: "3.5" }));
    }
    this.root.append(this.#arrivals);
  }
}

/** @param {string} name @param {Record<string, string>} attributes */
function make(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
