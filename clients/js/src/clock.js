/**
 * Time and chance, as the client sees them: tests put their own in the place of the system's.
 * @typedef {object} Clock
 * @property {() => number} now Milliseconds. They go on while the machine sleeps, which tells that a connection is old.
 * @property {() => number} random From 0 to 1.
 * @property {(run: () => void, ms: number) => unknown} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/** @type {Clock} */
export const systemClock = {
  now: () => Date.now(),
  random: () => Math.random(),
  // Browsers want their own timers called on the global object.
  setTimeout: (run, ms) => globalThis.setTimeout(run, ms),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
};
