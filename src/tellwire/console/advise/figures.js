/** What was measured of each transport: tellwire/advise/figures.py in JavaScript, for the run that comes with Tellwire. */

import { element } from "../elements.js";

/** @typedef {import("./rules.js").Rules} Rules */

/**
 * Follow a figure's path into what `tellwire compare` wrote of a transport.
 * @param {any} measured @param {(string | Record<string, number>)[]} path
 * @returns {number | undefined}
 */
export function valueOf(measured, path) {
  for (const step of path) {
    if (typeof step === "string") measured = measured?.[step];
    else {
      const entries = Array.isArray(measured) ? measured : [];
      measured = entries.find((entry) => Object.entries(step).every(([key, value]) => entry?.[key] === value));
    }
  }
  return typeof measured === "number" ? measured : undefined;
}

/** In three digits, with the unit. @param {number | undefined} value @param {string} unit */
export function written(value, unit) {
  if (value === undefined) return "–";
  const digits = value >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 };
  return `${value.toLocaleString("en", digits)} ${unit}`;
}

/** Where and when it was measured. @param {any} run */
export function aboutOf(run) {
  const { cores, cpu, load_average } = run.machine ?? {};
  const day = String(run.started_at ?? "").slice(0, 10);
  const busy = load_average > cores / 2 ? `, of which other programs took their part (load average ${load_average})` : "";
  return `By the run of tellwire compare that comes with Tellwire: ${cores} cores of ${cpu}${busy}, ${day}. Run it where you stand: yours are others.`;
}

/**
 * Fill the table: a row for each transport that was measured.
 * @param {Rules} rules @param {any} run @param {string[]} advised Those that are to stand out.
 * @param {HTMLElement} head @param {HTMLElement} rows
 */
export function drawFigures(rules, run, advised, head, rows) {
  const column = (/** @type {string} */ text) => {
    const cell = element("th", "", text);
    cell.scope = "col";
    return cell;
  };
  head.replaceChildren(column("transport"), ...rules.figures.map(({ name }) => column(name)));
  rows.replaceChildren(
    ...rules.transports
      .filter(({ key }) => run.transports[key]?.status === "measured")
      .map(({ key, name }) => {
        const row = element("tr", advised.includes(key) ? "is-advised" : "");
        const title = element("th", "", name);
        title.scope = "row";
        const cells = rules.figures.map(({ path, unit }) => element("td", "", written(valueOf(run.transports[key], path), unit)));
        row.append(title, ...cells);
        return row;
      }),
  );
}
