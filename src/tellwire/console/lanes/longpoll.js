import { Backoff, pause } from "./backoff.js";
import { readPage } from "./page.js";
import { Refused } from "./wire.js";

/** Long polling: ask, and be answered when there is something; then ask again at once. */
export class LongPollLane {
  /** Seconds that the server may hold the question. */
  static WAIT_S = 25;

  /** @type {AbortController | undefined} */
  #open;

  /** @param {string} channel @param {import("./wire.js").LaneEvents} events */
  constructor(channel, events) {
    this.channel = channel;
    this.events = events;
  }

  /** @param {string} cursor */
  open(cursor) {
    this.#open = new AbortController();
    void this.#run(cursor, this.#open.signal);
  }

  close() {
    this.#open?.abort();
  }

  /** @param {string} cursor @param {AbortSignal} signal */
  async #run(cursor, signal) {
    const backoff = new Backoff();
    let wait = 0; // the first question is answered at once, and so tells that the lane works
    this.events.onstate("opening");
    while (!signal.aborted) {
      try {
        const asked = performance.now();
        const { page, exact, estimated } = await readPage(this.channel, cursor, { wait, signal });
        if (signal.aborted) return;
        cursor = page.cursor;
        this.events.onstate("live");
        this.events.onbytes(exact, estimated);
        if (page.gap) this.events.ongap(page.gap);
        this.events.onmessages(page.messages, cursor);
        const held = performance.now() - asked > 1000;
        if (page.messages.length > 0 || page.gap || wait === 0 || held) backoff.reset();
        // Nothing, and at once: a server that is going away answers so. Do not ask it in circles.
        else await pause(backoff.next(), signal);
        wait = LongPollLane.WAIT_S;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused && error.status >= 400 && error.status < 500 && error.status !== 429) {
          return this.events.onstate("failed", error.message);
        }
        this.events.onstate("waiting", String(error));
        await pause(backoff.next(), signal);
        wait = 0;
      }
    }
  }
}
