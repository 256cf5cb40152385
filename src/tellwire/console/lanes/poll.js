import { Backoff, pause } from "./backoff.js";
import { readPage, tellPage } from "./page.js";
import { Refused } from "./wire.js";

/** Short polling: ask, take what there is, wait a second, ask again. */
export class PollLane {
  /** Milliseconds between two questions; on average a message waits for half of them. */
  static EVERY_MS = 1000;

  /** @type {AbortController | undefined} */
  #open;

  /**
   * @param {string} channel
   * @param {import("./wire.js").LaneEvents} events
   * @param {import("./wire.js").Attendance} attendance
   */
  constructor(channel, events, attendance) {
    this.channel = channel;
    this.events = events;
    this.attendance = attendance;
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
    this.events.onstate("opening");
    while (!signal.aborted) {
      let wait_ms = PollLane.EVERY_MS;
      try {
        const { page, exact, estimated } = await readPage(this.channel, cursor, {
          presence: this.attendance.wish(false),
          signal,
        });
        // An answer that crosses with close() is dropped whole: its cursor is not taken, so nothing in it is lost.
        if (signal.aborted) return;
        cursor = page.cursor;
        backoff.reset();
        this.events.onstate("live");
        this.events.onbytes(exact, estimated);
        tellPage(page, this.events);
        if (page.messages.length >= 1000) wait_ms = 0; // a full page: there is more
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused && error.isFinal) {
          return this.events.onstate("failed", error.message, error.code);
        }
        wait_ms = backoff.next();
        this.events.onstate("waiting", String(error));
      }
      await pause(wait_ms, signal);
    }
  }
}
