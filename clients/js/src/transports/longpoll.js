import { HttpTransport } from "./http.js";
import { Backoff } from "../backoff.js";

/** Ask, and be answered when there is something; then ask again at once (spec/protocol.md, section 8.3). */
export class LongPollTransport extends HttpTransport {
  /** @override */
  name = "longpoll";
  /** Seconds that the server may hold the request; the first is answered at once, and so tells that this works. */
  #wait_s = 0;
  #empty = new Backoff(this.host.clock);

  /** @override @param {{channels: string[], since: string | undefined, signal: AbortSignal, live: () => void}} what */
  async read({ channels, since, signal, live }) {
    const { clock, options } = this.host;
    const wait_s = this.#wait_s;
    const asked = clock.now();
    const page = await this.page(this.query(channels, { since, wait: wait_s, limit: 1000 }), signal, wait_s * 1000);
    this.take(page);
    this.#wait_s = Math.round(options.longPollMs / 1000);
    if (wait_s === 0) return live();
    // Nothing, and at once: a server that is going away answers so. Do not ask it in circles.
    const isHasty = page.messages.length === 0 && !page.gap && clock.now() - asked < 1000;
    if (isHasty) await this.pause(this.#empty.next(), signal);
    else this.#empty.reset();
  }
}
