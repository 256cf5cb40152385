import { randomText } from "../lanes/credentials.js";
import { order } from "../lanes/wire.js";

/** Events that are sent over each connection, and how far apart. */
export const EVENTS = 5;
export const APART_MS = 150;

/** Whatever takes longer is of no use: the clients go on to the next transport after as long. */
export const OPEN_MS = 5000;

/** @param {number} ms */
export function tooLate(ms) {
  return `nothing came for ${ms / 1000} seconds`;
}

/** How long the last of them is waited for. */
export const PATIENCE_MS = 3000;

/** @param {number} ms */
export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Wait, but no longer than that.
 * @template T
 * @param {Promise<T>} promise @param {number} ms @param {string} otherwise What is wrong when it takes longer.
 * @returns {Promise<T>}
 */
export async function within(promise, ms, otherwise) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(otherwise)), ms);
  });
  try {
    return await Promise.race([promise, /** @type {Promise<T>} */ (late)]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Ask for something, and give it up where it takes too long: a server may hang as well as end.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function inTime(work) {
  const end = new AbortController();
  const timer = setTimeout(() => end.abort(new Error(tooLate(OPEN_MS))), OPEN_MS);
  try {
    return await work(end.signal);
  } finally {
    clearTimeout(timer);
  }
}

/** Publishes events of a run, and keeps when each was acknowledged and when it came. */
export class Events {
  /** @type {Map<string, import("./arrivals.js").Sent>} */
  #sent = new Map();
  /** Those that came before their acknowledgement did. @type {Map<string, number>} */
  #early = new Map();
  #arrived = () => {};

  /** @param {string} channel */
  constructor(channel) {
    this.channel = channel;
  }

  /** @returns {import("./arrivals.js").Sent[]} In the order of their sending. */
  get sent() {
    return [...this.#sent.values()];
  }

  get #isComplete() {
    return [...this.#sent.values()].every(({ came_ms }) => came_ms !== undefined);
  }

  /** Publish one; rejects with the server's word where it may not be. */
  async publish() {
    const mark = randomText();
    await inTime((signal) => order("v1/messages", { channel: this.channel, data: { doctor: mark } }, { signal }));
    this.#sent.set(mark, { acked_ms: performance.now(), came_ms: this.#early.get(mark) });
  }

  /** Publish them all, one after the other, and wait for them. @param {number} [count] */
  async run(count = EVENTS) {
    for (let number = 0; number < count; number += 1) {
      if (number > 0) await pause(APART_MS);
      await this.publish();
    }
    if (this.#isComplete) return;
    const all = new Promise((resolve) => (this.#arrived = () => this.#isComplete && resolve(undefined)));
    await Promise.race([all, pause(PATIENCE_MS)]);
  }

  /** A message came. @param {unknown} data What was published. */
  came(data) {
    const mark = /** @type {any} */ (data)?.doctor;
    if (typeof mark !== "string") return;
    const sent = this.#sent.get(mark);
    if (sent) sent.came_ms ??= performance.now();
    else this.#early.set(mark, performance.now());
    this.#arrived();
  }
}
