import { HttpTransport } from "./http.js";

/** Ask, take what there is, wait, ask again (spec/protocol.md, section 8.3). */
export class PollTransport extends HttpTransport {
  /** @override */
  name = "poll";

  /** @override @param {{channels: string[], since: string | undefined, signal: AbortSignal, live: () => void}} what */
  async read({ channels, since, signal, live }) {
    const page = await this.page(this.query(channels, { since, limit: 1000 }), signal);
    this.take(page);
    live();
    // As long as there is something there may be more.
    if (page.messages.length === 0) await this.pause(this.host.options.pollMs, signal);
  }
}
