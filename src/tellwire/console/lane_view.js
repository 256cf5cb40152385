import { element, grouped } from "./elements.js";
import { utf8 } from "./lanes/size.js";
import { describe } from "./publisher.js";

/**
 * @typedef {import("./lanes/wire.js").Message} Message
 * @typedef {import("./ledger.js").Verdict} Verdict
 */

/** Rows that a lane keeps. */
const ROWS = 200;

/** Latencies that the median is of. */
const SAMPLES = 201;

/** Width of a tick and the space after it, in CSS pixels. */
const TICK = 5;

/** One lane on the page. It is told things at any time, and draws once for each frame. */
export class LaneView {
  /** @type {HTMLLIElement[]} */
  #rows = [];
  /** @type {number[]} */
  #latencies = [];
  #payload = 0;
  #exact = 0;
  #estimated = 0;
  #count = 0;

  /** @param {HTMLTemplateElement} template @param {{ key: string, name: string, about: string }} lane */
  constructor(template, { key, name, about }) {
    const fragment = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.root = /** @type {HTMLElement} */ (fragment.firstElementChild);
    this.root.dataset.lane = key;
    this.name = name;
    /** @type {Record<string, HTMLElement>} */
    this.parts = {};
    for (const part of this.root.querySelectorAll("[data-part]")) {
      this.parts[/** @type {HTMLElement} */ (part).dataset.part ?? ""] = /** @type {HTMLElement} */ (part);
    }
    this.parts.name.id = `lane-${key}`;
    this.root.setAttribute("aria-labelledby", this.parts.name.id);
    this.parts.scroller.setAttribute("aria-label", `Messages over ${name}, newest first`);
    this.parts.name.textContent = name;
    this.parts.about.textContent = about;
  }

  /** Begin anew, on another channel. */
  clear() {
    this.#rows = [];
    this.#latencies = [];
    this.#payload = this.#exact = this.#estimated = this.#count = 0;
    this.parts.rows.replaceChildren();
    this.root.dataset.count = "0";
  }

  /** @param {string} state @param {string} label @param {string} [detail] */
  showState(state, label, detail = "") {
    this.root.dataset.state = state;
    this.parts.state.textContent = label;
    this.parts.state.title = detail;
  }

  /** @param {string} text @param {boolean} isCut */
  showCut(text, isCut) {
    this.parts.cut.textContent = text;
    this.parts.cut.setAttribute("aria-label", `${text}: ${this.name}`);
    this.parts.cut.classList.toggle("is-cut", isCut);
  }

  /** @param {string} cursor */
  showCursor(cursor) {
    this.parts.cursor.textContent = cursor;
    this.parts.cursor.title = cursor;
  }

  /** @param {number} exact @param {number} estimated */
  addBytes(exact, estimated) {
    this.#exact += exact;
    this.#estimated += estimated;
  }

  /**
   * @param {Message} message
   * @param {number | undefined} latency_ms Since it was sent, where that is known.
   * @param {boolean} isLate It was sent before this connection was there: it tells how long the cut was, not the wire.
   */
  addMessage(message, latency_ms, isLate) {
    this.#count += 1;
    this.#payload += utf8(JSON.stringify(message.data));
    if (latency_ms !== undefined && !isLate) {
      this.#latencies.push(latency_ms);
      if (this.#latencies.length > SAMPLES) this.#latencies.shift();
    }
    const row = element("li", isLate ? "row is-late" : "row");
    if (message.seq !== undefined) row.dataset.seq = String(message.seq);
    const text = describe(message.data) ?? "";
    row.append(
      element("span", "seq", message.seq === undefined ? "–" : String(message.seq)),
      element("span", "text", text.length > 200 ? `${text.slice(0, 200)}…` : text || " "),
      element("span", "took", latency_ms === undefined ? "" : milliseconds(latency_ms)),
    );
    this.#add(row);
  }

  /** Say between the rows what happened. @param {string} text @param {string} kind */
  addNote(text, kind) {
    this.#add(element("li", `note is-${kind}`, text));
  }

  /** @param {HTMLLIElement} row */
  #add(row) {
    this.#rows.push(row);
    // What would be beyond the last row kept when it is drawn never gets onto the page at all.
    if (this.#rows.length > ROWS) this.#rows.splice(0, this.#rows.length - ROWS);
  }

  /** @param {Verdict} verdict @param {("had" | "pending" | "missing")[]} ticks Newest last; as many as #ticks asks. */
  draw(verdict, ticks) {
    const { parts, root } = this;
    const rows = parts.rows;
    if (this.#rows.length > 0) {
      rows.prepend(...this.#rows.reverse());
      this.#rows = [];
      while (rows.childElementCount > ROWS) rows.lastElementChild?.remove();
    }
    const { received, lost, twice, disordered, told, pending } = verdict;
    Object.assign(root.dataset, { count: this.#count, received, lost, twice, disordered, told, pending });
    root.classList.toggle("has-fault", lost + twice + disordered > 0);
    parts.verdict.textContent = verdictText(verdict);
    parts.pending.hidden = pending === 0;
    parts.pending.textContent = `${grouped(pending)} waiting`;

    const latencies = this.#latencies;
    parts.median.textContent = latencies.length > 0 ? milliseconds(median(latencies)) : "–";
    parts.last.textContent = latencies.length > 0 ? milliseconds(/** @type {number} */ (latencies.at(-1))) : "–";
    const total = this.#exact + this.#estimated;
    parts.payload.textContent = size(this.#payload);
    parts.overhead.textContent = `≈ ${size(Math.max(0, total - this.#payload))}`;
    parts.each.textContent = this.#count > 0 ? `≈ ${size(total / this.#count)}` : "–";
    const share = /** @type {HTMLMeterElement} */ (parts.share);
    share.value = total > 0 ? this.#payload / total : 0;
    share.title = `${Math.round(share.value * 100)} % of the bytes are payload`;
    this.#drawTicks(ticks);
  }

  /** How many ticks fit. */
  get tickCount() {
    return Math.max(1, Math.floor(this.parts.ticks.clientWidth / TICK));
  }

  /** @param {("had" | "pending" | "missing")[]} ticks */
  #drawTicks(ticks) {
    const canvas = /** @type {HTMLCanvasElement} */ (this.parts.ticks);
    const { clientWidth: width, clientHeight: height } = canvas;
    const scale = devicePixelRatio;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const context = canvas.getContext("2d");
    if (!context) return;
    const style = getComputedStyle(canvas);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    // The wire: whole while connected, and broken while it is cut.
    context.strokeStyle = style.getPropertyValue("--line");
    context.setLineDash(this.root.dataset.state === "live" ? [] : [2, 4]);
    context.beginPath();
    context.moveTo(0, height / 2);
    context.lineTo(width, height / 2);
    context.stroke();
    context.setLineDash([]);
    const copper = style.getPropertyValue("--copper");
    const bad = style.getPropertyValue("--bad");
    ticks.forEach((tick, index) => {
      const x = width - (ticks.length - index) * TICK;
      if (tick === "pending") {
        context.strokeStyle = copper;
        context.strokeRect(x + 0.5, height / 2 - 3.5, TICK - 3, 7);
      } else {
        context.fillStyle = tick === "had" ? copper : bad;
        context.fillRect(x, 1, TICK - 2, height - 2);
      }
    });
  }
}

/** @param {Verdict} verdict */
export function verdictText({ received, lost, twice, disordered, told }) {
  const words = [`${grouped(received)} in order`, `${grouped(lost)} lost`, `${grouped(twice)} twice`];
  if (disordered > 0) words.push(`${grouped(disordered)} out of order`);
  if (told > 0) words.push(`${grouped(told)} missing, as a gap said`);
  return words.join(", ");
}

/** @param {number} ms */
function milliseconds(ms) {
  if (ms < 0) return "0 ms"; // the clocks' fractions differ by less than a tick
  if (ms < 100) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** @param {number} bytes */
function size(bytes) {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
}

/** @param {number[]} values */
function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}
