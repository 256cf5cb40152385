const SVG = "http://www.w3.org/2000/svg";

/** Values that are drawn: two minutes of them, one a second. */
const KEPT = 120;

const WIDTH = 240;
const HEIGHT = 36;

/** A small line of the newest values; its scale is that of the largest. */
export class Sparkline {
  /** @type {number[]} */
  #values = [];

  /** @param {SVGSVGElement} svg */
  constructor(svg) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    this.area = document.createElementNS(SVG, "path");
    this.area.setAttribute("class", "area");
    this.line = document.createElementNS(SVG, "polyline");
    svg.append(this.area, this.line);
  }

  /** @param {number} value */
  add(value) {
    this.#values.push(value);
    if (this.#values.length > KEPT) this.#values.shift();
    const most = Math.max(1, ...this.#values);
    const step = WIDTH / (KEPT - 1);
    const first = WIDTH - (this.#values.length - 1) * step;
    const points = this.#values.map((each, index) => {
      const y = HEIGHT - 2 - (each / most) * (HEIGHT - 4);
      return `${(first + index * step).toFixed(1)},${y.toFixed(1)}`;
    });
    this.line.setAttribute("points", points.join(" "));
    this.area.setAttribute("d", `M${first.toFixed(1)},${HEIGHT} L${points.join(" L")} L${WIDTH},${HEIGHT} Z`);
  }
}
