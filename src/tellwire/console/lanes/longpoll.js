import { Backoff, pause } from "./backoff.js";
import { readPage, tellPage } from "./page.js";
import { Refused } from "./wire.js";

/** Long polling: ask, and be answered when there is something; then ask again at once. */
export class LongPollLane {
  /** Seconds that the server may hold the question. */
  static WAIT_S = 25;

  /** @type {AbortController | undefined} */
  #open;
  /** @type {AbortController | undefined} */
  #question;

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

  /** Ask anew, where what is wished for has changed while the server holds the question. */
  again() {
    this.#question?.abort();
  }

  /** @param {string} cursor @param {AbortSignal} signal */
  async #run(cursor, signal) {
    const backoff = new Backoff();
    let wait = 0; // the first question is answered at once, and so tells that the lane works
    this.events.onstate("opening");
    while (!signal.aborted) {
      const question = new AbortController();
      this.#question = question;
      try {
        const asked = performance.now();
        const { page, exact, estimated } = await readPage(this.channel, cursor, {
          wait,
          presence: this.attendance.wish(false),
          signal: AbortSignal.any([signal, question.signal]),
        });
        if (signal.aborted) return;
        cursor = page.cursor;
        this.events.onstate("live");
        this.events.onbytes(exact, estimated);
        tellPage(page, this.events);
        const held = performance.now() - asked > 1000;
        if (page.messages.length > 0 || page.gap || wait === 0 || held) backoff.reset();
        // Nothing, and at once: a server that is going away answers so. Do not ask it in circles.
        else await pause(backoff.next(), signal);
        wait = LongPollLane.WAIT_S;
      } catch (error) {
        if (signal.aborted) return;
        if (question.signal.aborted) continue;
        if (error instanceof Refused && error.isFinal) {
          return this.events.onstate("failed", error.message, error.code);
        }
        this.events.onstate("waiting", String(error));
        await pause(backoff.next(), signal);
        wait = 0;
      }
    }
  }
}
