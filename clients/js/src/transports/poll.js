import { Lane } from "./lane.js";

/** Ask, take what there is, wait, ask again (spec/protocol.md, section 8.3). */
export class PollLane extends Lane {
  /** @param {import("./lane.js").Turn} turn */
  async read({ channels, since, signal, live }) {
    const page = await this.page(this.query(channels, { since, limit: this.host.pageLimit, presence: this.attendance }), signal);
    this.take(page);
    live();
    // As long as there is something there may be more.
    if (page.messages.length === 0) await this.pause(this.host.options.pollMs, signal);
  }
}
