import { split } from "../cursor.js";
import { TellwireError, closed } from "../errors.js";
import { SseParser } from "../sse-parser.js";
import { Lane } from "./lane.js";

/** Server-Sent Events for what comes down (spec/protocol.md, section 8.4). */
export class SseLane extends Lane {
  /** @override @param {import("./lane.js").Turn} turn */
  async read({ channels, since, signal, live }) {
    const { http, clock, options } = this.host;
    const parser = new SseParser((event) => this.#take(event));
    const silence = new AbortController();
    const stop = () => silence.abort();
    signal.addEventListener("abort", stop);
    /** @type {unknown} */
    let watchdog;
    try {
      await http.ask("v1/events", {
        query: this.query(channels, { since, envelope: 1, presence: this.attendance }),
        headers: { Accept: "text/event-stream" },
        signal: silence.signal,
        timeoutMs: options.tryTimeoutMs,
        take: async (response, arrived) => {
          const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
          for (;;) {
            const { done, value } = await reader.read();
            if (done) break;
            // A proxy that keeps the stream to itself passes on its head at once: only what comes in it counts.
            if (watchdog === undefined) {
              arrived();
              live();
            }
            this.heardAt = clock.now();
            clock.clearTimeout(watchdog);
            watchdog = clock.setTimeout(stop, options.heartbeatMs * 2.5);
            parser.feed(value);
            if (signal.aborted) return;
          }
        },
      });
    } finally {
      clock.clearTimeout(watchdog);
      signal.removeEventListener("abort", stop);
      if (parser.lastEventId) this.reached(parser.lastEventId);
    }
    if (!signal.aborted) {
      throw new TellwireError("disconnected", "the stream ended", { retryAfterMs: parser.retryMs ?? undefined });
    }
  }

  /** @param {{event: string, data: string, id: string}} event */
  #take({ event, data, id }) {
    const push = JSON.parse(data);
    if (event === "gap") this.gap(push);
    else if (event === "closing") throw closed(push.code, push.reason, push.reconnect_in_ms);
    else this.push(push, split(id)?.[0] ?? "");
  }
}
