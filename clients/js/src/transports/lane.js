import { lowest, split } from "../cursor.js";
import { TellwireError, asError } from "../errors.js";

/** @typedef {import("../subscription.js").Subscription} Subscription */
/** @typedef {{channels: string[], since: string | undefined, signal: AbortSignal, live: () => void}} Turn */
/** @typedef {{read: (turn: Turn) => Promise<void>}} Reader */

/** Codes of a reading request that are about one of its channels. */
const ABOUT_A_CHANNEL = new Set(["forbidden", "invalid_channel", "invalid_cursor", "bad_request"]);

/** Fewer messages than that are read again rather than asked for again. */
const LITTLE = 100;

/** Messages that are asked for at once. */
export const PAGE_MAX = 1000;

/** @param {{channel: string}[]} readers */
const names = (readers) => readers.map(({ channel }) => channel);

/**
 * One reading request after the other, for all channels that want the same of presence.
 *
 * A request begins at the place of the channel that is furthest behind; what the others have had they drop. A channel
 * that has no place yet is first read by itself until it has one.
 *
 * Subclasses have `read(turn)`, which reads until the signal says no more, or for one answer; raises what went wrong.
 */
export class Lane {
  /** What the request under way reads. @type {Map<string, Subscription>} */
  round = new Map();
  isOpen = false;
  isOver = false;
  /** When the server was last heard, or asked. */
  heardAt = 0;
  /** Ends with the lane. */
  #life = new AbortController();
  /** Ends with the request under way. */
  #turn = new AbortController();
  /** Of which channels the request under way tells who is there. @type {import("../presence.js").Presence[]} */
  #watched = [];
  #isPreparing = false;
  #isStale = false;
  /** Those that were told that they are read. @type {WeakSet<Subscription>} */
  #began = new WeakSet();

  /** @param {import("./http.js").HttpTransport} transport @param {import("./http.js").Attendance} attendance */
  constructor(transport, attendance) {
    this.transport = transport;
    this.host = transport.host;
    this.attendance = attendance;
  }

  /** Resolves when everything is being read. @returns {Promise<void>} */
  open() {
    return new Promise((resolve, reject) => {
      const live = () => {
        if (this.isOpen || this.isOver) return;
        this.isOpen = true;
        this.#begin();
        resolve();
        this.sync();
      };
      this.#run(live).catch((caught) => {
        const error = this.isOver ? new TellwireError("disconnected", "closed") : asError(caught);
        if (this.isOpen && !this.isOver) this.transport.fail(error);
        this.close();
        reject(error);
      });
    });
  }

  close() {
    this.isOver = true;
    this.#life.abort();
    this.#turn.abort();
  }

  /** Read what is wanted now: a new channel catches up by itself, while the others go on. */
  sync() {
    const wanted = this.#readings();
    const isSame =
      wanted.size === this.round.size &&
      [...wanted].every(([channel, reading]) => this.round.get(channel) === reading) &&
      names(this.#rooms()).join() === names(this.#watched).join();
    if (isSame && !this.#isPreparing) return;
    for (const [channel, reading] of this.round) if (wanted.get(channel) !== reading) this.round.delete(channel);
    this.#isStale = true;
    if (this.isOpen && !this.isOver && !this.#isPreparing) void this.#refresh();
  }

  /** Ask anew, if there should have been a sign of life by now. */
  verify() {
    if (this.host.clock.now() - this.heardAt > this.host.options.heartbeatMs) this.#turn.abort();
  }

  async #refresh() {
    this.#isPreparing = true;
    try {
      while (this.#isStale) {
        this.#isStale = false;
        await this.#prepare(this.#life.signal);
      }
    } catch (error) {
      if (!this.isOver) this.transport.fail(asError(error));
    } finally {
      this.#isPreparing = false;
    }
    this.#turn.abort();
  }

  /** What this lane is to read. */
  #readings() {
    const { transport, attendance } = this;
    return new Map([...this.host.readings()].filter(([channel]) => transport.attendanceOf(channel) === attendance));
  }

  /** Of which channels it is to be told who is there. */
  #rooms() {
    const { transport, attendance } = this;
    return [...this.host.rooms.values()].filter(({ channel }) => attendance && transport.attendanceOf(channel) === attendance);
  }

  #begin() {
    for (const reading of this.round.values()) {
      if (!this.#began.has(reading)) reading.began();
      this.#began.add(reading);
    }
  }

  /** @param {() => void} live */
  async #run(live) {
    while (!this.isOver) {
      this.#turn = new AbortController();
      const { signal } = this.#turn;
      this.heardAt = this.host.clock.now();
      if (!this.isOpen) await this.#prepare(this.#life.signal);
      this.round = new Map([...this.#readings()].filter(([, { place }]) => place.cursor !== null));
      if (this.isOpen) this.#begin();
      this.#watched = this.#rooms();
      const readers = [...this.round.values(), ...this.#watched];
      const channels = [...new Set(names(readers))];
      const cursors = readers.map(({ place }) => place.cursor);
      if (this.attendance === "enter" && this.host.inbox.cursor !== null) cursors.push(this.host.inbox.cursor);
      const since = lowest(cursors);
      if (channels.length > 0 && since === undefined) throw new TellwireError("disconnected", "the log was replaced");
      try {
        if (channels.length === 0) await this.#idle(signal, live);
        else await /** @type {Reader} */ (/** @type {unknown} */ (this)).read({ channels, since, signal, live });
      } catch (error) {
        if (this.isOver) throw error;
        // A turn that was ended is no failure: there is something else to read.
        if (!signal.aborted && !(await this.#blame(asError(error)))) throw error;
      }
    }
    throw new TellwireError("disconnected", "closed");
  }

  /**
   * The parameters of a reading request.
   * @param {string[]} channels
   * @param {Record<string, string | number | undefined>} more
   * @returns {[string, string | number | undefined][]}
   */
  query(channels, more) {
    const { session } = this.host;
    return [...channels.map((name) => /** @type {[string, string]} */ (["channel", name])), ...Object.entries({ ...more, session })];
  }

  /**
   * @param {import("../http.js").Query} query
   * @param {AbortSignal} signal
   * @param {number} [waitMs]
   * @returns {Promise<import("../wire.js").Page>}
   */
  async page(query, signal, waitMs = 0) {
    const { host } = this;
    const { pageLimit } = host;
    try {
      const timeoutMs = host.options.tryTimeoutMs + waitMs;
      const page = await host.http.json("v1/messages", { query, signal, timeoutMs });
      host.pageLimit = Math.min(pageLimit * 2, PAGE_MAX);
      return page;
    } catch (error) {
      // Over a line that is slow or bad, less may get through.
      if (!asError(error).status) host.pageLimit = Math.max(pageLimit >> 2, 1);
      throw error;
    }
  }

  /** Take what a page has. @param {import("../wire.js").Page} page */
  take(page, round = this.round) {
    const [epoch = ""] = split(page.cursor) ?? [];
    this.gap(page.gap, round);
    for (const push of page.messages) this.push(push, epoch, round);
    this.reached(page.cursor, round);
  }

  /** @param {import("../wire.js").Gap | null | undefined} gap */
  gap(gap, round = this.round) {
    if (!gap) return;
    for (const reading of round.values()) reading.gap(gap);
    this.host.gap(gap);
  }

  /** @param {any} push @param {string} epoch */
  push(push, epoch, round = this.round) {
    if (push.type === "unsubscribed") {
      round.get(push.channel)?.end(new TellwireError(push.code ?? "forbidden", `the server ended the reading of ${push.channel}`));
    } else if (push.type !== "message") this.host.push(push, epoch, this.transport);
    else round.get(push.channel)?.take(push, epoch, this.host.isCurrent(this.transport));
  }

  /** A request reads all its channels in order: each of them has had what is before. @param {string} cursor */
  reached(cursor, round = this.round) {
    for (const reading of round.values()) if (reading.isWanted) reading.place.at(cursor);
    if (round !== this.round) return;
    for (const { place } of this.#watched) if (place.cursor) place.at(cursor);
    if (this.transport.readsInbox(this)) this.host.inbox.at(cursor);
  }

  /** Give every channel a place from which one request can go on. @param {AbortSignal} signal @returns {Promise<void>} */
  async #prepare(signal) {
    const all = () => [...this.#readings().values()];
    // All that begin now begin together.
    const begin = all().filter(({ place, options: { since, last } }) => {
      return place.cursor === null && (since ?? "now") === "now" && last === undefined;
    });
    if (begin.length > 0) {
      try {
        const page = await this.page(this.query(names(begin), {}), signal);
        for (const { place } of begin) place.at(page.cursor);
      } catch (error) {
        if (!(await this.#blame(asError(error), begin))) throw error;
        return this.#prepare(signal);
      }
    }
    for (const reading of all()) if (reading.place.cursor === null) await this.#catchUp(reading, signal);
    // After the log was replaced, all of them have to be in the new one.
    if (lowest(all().map(({ place }) => place.cursor)) === undefined) {
      for (const reading of all()) await this.#catchUp(reading, signal);
    }
  }

  /** Read one channel by itself, until there is little left. @param {Subscription} reading @param {AbortSignal} signal */
  async #catchUp(reading, signal) {
    for (let count = LITTLE; reading.isWanted && count >= LITTLE; ) {
      try {
        const page = await this.page(this.query([reading.channel], { ...reading.wish, limit: this.host.pageLimit }), signal);
        this.take(page, new Map([[reading.channel, reading]]));
        count = page.messages.length;
      } catch (error) {
        if (!(await this.#blame(asError(error), [reading]))) throw error;
      }
    }
  }

  /**
   * An error may be about one channel only: end the reading of that one. Whether there was such a channel.
   * @param {TellwireError} error
   * @param {Iterable<Subscription>} [among]
   */
  async #blame(error, among) {
    if (!ABOUT_A_CHANNEL.has(error.code)) return false;
    const suspects = [...(among ?? this.round.values())];
    const rooms = among ? [] : this.#watched;
    const [only] = suspects;
    if (only && suspects.length === 1 && rooms.length === 0) {
      only.end(error);
      return true;
    }
    let found = false;
    for (const reading of suspects) {
      const query = this.query([reading.channel], { since: reading.place.cursor ?? undefined, limit: 1 });
      const asked = await this.page(query, this.#life.signal).catch(asError);
      if (!(asked instanceof TellwireError)) continue;
      if (!ABOUT_A_CHANNEL.has(asked.code)) throw asked;
      reading.end(asked);
      found = true;
    }
    if (found) return true;
    // Then it is about who is there.
    for (const room of rooms) room.fail(error);
    return rooms.length > 0;
  }

  /** There is nothing to read: only make sure that the server is there. @param {AbortSignal} signal @param {() => void} live */
  async #idle(signal, live) {
    if (!this.isOpen) {
      await this.page(this.query([], {}), this.#life.signal).catch((caught) => {
        // It misses a channel, and so is there.
        if (asError(caught).code !== "bad_request") throw caught;
      });
      live();
    }
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
  }

  /** Wait, but no longer than the signal lets. @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
  pause(ms, signal) {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const timer = this.host.clock.setTimeout(resolve, ms);
      signal.addEventListener("abort", () => {
        this.host.clock.clearTimeout(timer);
        resolve();
      });
    });
  }
}
