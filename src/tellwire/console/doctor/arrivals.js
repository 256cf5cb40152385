/**
 * What the times at which events were sent and came say of the way between: nothing in here asks a clock or a network.
 *
 * @typedef {object} Sent
 * @property {number} acked_ms When the server said that it has the event.
 * @property {number} [came_ms] When the event came; left out where it has not.
 *
 * @typedef {"flowing" | "clumped" | "held" | "unknown"} Flow
 */

/** An event that comes so much later than its publish was acknowledged did not come at once. */
export const LATE_MS = 500;

/** Of two that were sent apart, the gap that is left when they come together, as a share of what it was. */
const TOGETHER = 0.3;

/** @param {Sent[]} sent @returns {number[]} Milliseconds from acknowledged to there, for those that came. */
export function lags(sent) {
  return sent.flatMap(({ acked_ms, came_ms }) => (came_ms === undefined ? [] : [Math.max(0, came_ms - acked_ms)]));
}

/** @param {number[]} values */
export function median(values) {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Events that were sent one after the other, and come in one lump or not at all, were held back on the way. A line that
 * is merely slow delays each alike, and one that stumbles delays one of them.
 * @param {Sent[]} sent In their order.
 * @returns {Flow}
 */
export function flowOf(sent) {
  if (sent.length === 0) return "unknown";
  const came = sent.filter(({ came_ms }) => came_ms !== undefined);
  if (came.length * 2 < sent.length) return "held";
  let together = 0;
  for (let index = 1; index < came.length; index += 1) {
    const apart = came[index].acked_ms - came[index - 1].acked_ms;
    const gap = (came[index].came_ms ?? 0) - (came[index - 1].came_ms ?? 0);
    if (gap < apart * TOGETHER) together += 1;
  }
  const isLate = Math.max(...lags(came)) > LATE_MS;
  if (came.length < sent.length) return isLate ? "clumped" : "held";
  return isLate && came.length > 1 && together * 2 >= came.length - 1 ? "clumped" : "flowing"; // one is no lump
}
