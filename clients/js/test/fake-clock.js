/** A clock that goes only when it is told to, and whose chance is 0. */
export class FakeClock {
  #now = 1_000_000;
  #next = 0;
  /** @type {Map<number, {at: number, run: () => void}>} */
  #timers = new Map();
  chance = 0;

  now = () => this.#now;
  random = () => this.chance;
  setTimeout = (/** @type {() => void} */ run, /** @type {number} */ ms) => {
    this.#timers.set(++this.#next, { at: this.#now + ms, run });
    return this.#next;
  };
  clearTimeout = (/** @type {any} */ timer) => void this.#timers.delete(timer);

  /** Timers that are set. */
  get pending() {
    return this.#timers.size;
  }

  /** Let so much time pass, and everything happen that happens in it. @param {number} ms */
  async advance(ms) {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const [next] = [...this.#timers].filter(([, { at }]) => at <= end).sort(([a, x], [b, y]) => x.at - y.at || a - b);
      if (!next) break;
      this.#timers.delete(next[0]);
      this.#now = Math.max(this.#now, next[1].at);
      next[1].run();
      await settle();
    }
    this.#now = end;
  }
}

/** Let everything happen that needs no time. */
export async function settle() {
  for (let turn = 0; turn < 8; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
