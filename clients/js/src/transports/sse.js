import { split } from "../cursor.js";
import { TellwireError, closed } from "../errors.js";
import { parts } from "../http.js";
import { SseParser } from "../sse-parser.js";
import { Lane } from "./lane.js";

/** Server-Sent Events for what comes down (spec/protocol.md, section 8.4). */
export class SseLane extends Lane {
  /** @param {import("./lane.js").Turn} turn */
  async read({ channels, since, signal, live }) {
    const { http, clock, options } = this.host;
    const parser = new SseParser((event) => this.#take(event), true);
    try {
      await http.ask("v1/events", {
        query: this.query(channels, { since, envelope: 1, presence: this.attendance }),
        headers: { Accept: "text/event-stream" },
        signal,
        timeoutMs: options.tryTimeoutMs,
        take: async (response, wait) => {
          for await (const part of parts(response)) {
            // A proxy that keeps the stream to itself passes on its head at once: only what comes in it counts.
            live();
            this.heardAt = clock.now();
            wait(options.heartbeatMs * 2.5);
            parser.feed(part);
            if (signal.aborted) return;
          }
        },
      });
    } finally {
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
