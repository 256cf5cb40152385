/**
 * How long to wait before coming back: 1, 2, 4, 8, 16, 32, 60 seconds and then 60 each time, plus up to half a second
 * at random, so that a thousand pages do not come back in the same instant (spec/protocol.md, section 11.3).
 */
export class Backoff {
  #tries = 0;

  /** Milliseconds until the next try. */
  next() {
    const base_s = Math.min(2 ** this.#tries, 60);
    this.#tries += 1;
    return base_s * 1000 + Math.random() * 500;
  }

  /** A connection worked: begin anew. */
  reset() {
    this.#tries = 0;
  }
}

/**
 * Wait, but no longer than until `signal` is aborted; a browser that comes back online waits no longer either.
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    addEventListener("online", done);
  });
}
