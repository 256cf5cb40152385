import { Backoff } from "../backoff.js";
import { Lane } from "./lane.js";

/** Ask, and be answered when there is something; then ask again at once (spec/protocol.md, section 8.3). */
export class LongPollLane extends Lane {
  #empty = new Backoff(this.host.clock);

  /** @param {import("./lane.js").Turn} turn */
  async read({ channels, since, signal, live }) {
    const { clock, options } = this.host;
    // The first is answered at once, and so tells that this works.
    const wait = this.isOpen ? Math.round(options.longPollMs / 1000) : 0;
    const asked = clock.now();
    const query = this.query(channels, { since, wait, limit: this.host.pageLimit, presence: this.attendance });
    const page = await this.page(query, signal, wait * 1000);
    this.take(page);
    if (wait === 0) return live();
    // Nothing, and at once: a server that is going away answers so. Do not ask it in circles.
    const isHasty = page.messages.length === 0 && !page.gap && clock.now() - asked < 1000;
    if (isHasty) await this.pause(this.#empty.next(), signal);
    else this.#empty.reset();
  }
}
