import { Backoff } from "./backoff.js";
import { credentials } from "./credentials.js";
import { readPage } from "./page.js";
import { CHUNK, STREAM_HEAD, requestSize, utf8 } from "./size.js";
import { FINAL_CLOSES, Refused, address } from "./wire.js";

/**
 * Server-Sent Events. The browser's EventSource reconnects by itself and says in `Last-Event-ID` where it was; only
 * after close(), or an answer that is no stream, do we say so ourselves, with `since`.
 */
export class SseLane {
  #cursor = "";
  #backoff = new Backoff();
  /** @type {EventSource | undefined} */
  #source;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

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
    this.#cursor = cursor;
    this.events.onstate("opening");
    // `envelope` wraps what was published with its seq, id and time.
    const url = address("v1/events", { channel: this.channel, since: cursor, envelope: "1", ...this.#who() });
    const source = new EventSource(url);
    this.#source = source;

    source.onopen = () => {
      this.#backoff.reset();
      this.events.onstate("live");
      this.events.onbytes(0, requestSize(url) + STREAM_HEAD);
    };

    source.onmessage = (event) => {
      if (event.lastEventId) this.#cursor = event.lastEventId;
      this.#count(event, "");
      this.events.onmessages([JSON.parse(event.data)], this.#cursor);
    };

    source.addEventListener("gap", (event) => {
      const gap = JSON.parse(event.data);
      if (gap.reason === "epoch") this.#cursor = gap.to;
      this.#count(event, "event: gap\n");
      this.events.ongap(gap);
    });

    source.addEventListener("closing", (event) => {
      // From 4500 on, coming back would not help, and an EventSource would come back for ever.
      const { code, reason } = JSON.parse(event.data);
      if (code < 4500 && !FINAL_CLOSES.has(code)) return;
      source.close();
      this.events.onstate("failed", reason, FINAL_CLOSES.get(code));
    });

    for (const name of ["presence", "signal"]) {
      source.addEventListener(name, (event) => {
        if (event.lastEventId) this.#cursor = event.lastEventId;
        this.#count(event, `event: ${name}\n`);
        this.events.onpush(JSON.parse(event.data), this.#cursor);
        this.events.onmessages([], this.#cursor);
      });
    }

    source.onerror = () => {
      if (source.readyState === EventSource.CONNECTING) {
        this.events.onstate("waiting", "the browser reconnects");
        return;
      }
      void this.#explain(source);
    };
  }

  /** What says who this is: an EventSource can send no fields of its own. @returns {Record<string, string>} */
  #who() {
    const { session, token } = credentials;
    const presence = this.attendance.wish(true);
    return { ...(presence ? { presence, session } : {}), ...(token ? { token } : {}) };
  }

  /**
   * The answer was an error, after which an EventSource gives up, and does not say why. A poll is told why; where that
   * is nothing final we come back.
   * @param {EventSource} source
   */
  async #explain(source) {
    let why = "the server refused the stream";
    try {
      await readPage(this.channel, this.#cursor, { limit: 1, presence: this.attendance.wish(true) && "watch" });
    } catch (error) {
      if (this.#source !== source) return;
      if (error instanceof Refused && error.isFinal) {
        return this.events.onstate("failed", error.message, error.code);
      }
      why = error instanceof Refused ? error.message : why;
    }
    if (this.#source !== source) return; // closed in the meantime, or opened anew
    const wait_ms = this.#backoff.next();
    this.events.onstate("waiting", why);
    this.#timer = setTimeout(() => this.open(this.#cursor), wait_ms);
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
  }

  /** @param {MessageEvent<string>} event @param {string} name */
  #count(event, name) {
    const text = `id: ${event.lastEventId}\n${name}data: \n\n`;
    this.events.onbytes(text.length + utf8(event.data), CHUNK);
  }
}
