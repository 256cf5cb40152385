const LONGEST_MS = 60_000;
const JITTER_MS = 500;

/** What `navigator.connection.effectiveType` multiplies waits with: a slow line is not to be filled with tries. */
const SLOWNESS = /** @type {Record<string, number>} */ ({ "slow-2g": 4, "2g": 2 });

/**
 * Milliseconds to wait after so many failures in a row (spec/protocol.md, section 11.3).
 * @param {number} failures
 * @param {number} random From 0 to 1.
 * @param {number | null} [toldMs] When the server said to come back; it knows better.
 */
export function waitMs(failures, random, toldMs) {
  if (toldMs !== null && toldMs !== undefined) return toldMs;
  const exponent = Math.min(Math.max(failures, 1) - 1, 6);
  return Math.min(1000 * 2 ** exponent, LONGEST_MS) + JITTER_MS * random;
}

/** How many tries have failed since one worked. */
export class Backoff {
  failures = 0;

  /** @param {import("./clock.js").Clock} clock */
  constructor(clock) {
    this.clock = clock;
  }

  /** A try failed: how many milliseconds until the next one? @param {number | null} [toldMs] */
  next(toldMs) {
    // Told is not failed.
    if (toldMs !== null && toldMs !== undefined) return toldMs;
    this.failures += 1;
    const wait = waitMs(this.failures, this.clock.random());
    const { connection } = /** @type {any} */ (globalThis.navigator ?? {});
    return wait * (SLOWNESS[connection?.effectiveType] ?? 1);
  }

  /** One worked: begin anew. */
  reset() {
    this.failures = 0;
  }
}
