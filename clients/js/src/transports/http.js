import { lowest, split } from "../cursor.js";
import { TellwireError, asError } from "../errors.js";

/** @typedef {import("../subscription.js").Subscription} Subscription */

/** Codes of a reading request that are about one of its channels. */
const ABOUT_A_CHANNEL = new Set(["forbidden", "invalid_channel", "invalid_cursor", "bad_request"]);

/** Fewer messages than that are read again rather than asked for again. */
const LITTLE = 100;

/**
 * What the transports over plain HTTP share: one request reads all channels, from the place of the one furthest
 * behind, so each channel that has no place yet is first read by itself until it has one. Publishing and the rest are
 * requests of their own.
 */
export class HttpTransport {
  name = "";
  batches = 1;
  /** What the request under way reads. @type {Map<string, Subscription>} */
  round = new Map();
  isOver = false;
  #isOpen = false;
  /** Ends with the transport. */
  #life = new AbortController();
  /** Ends with the request under way. */
  #turn = new AbortController();
  #isPreparing = false;
  #isStale = false;
  /** Those that were told that they are read. @type {WeakSet<Subscription>} */
  #began = new WeakSet();
  #leases = new Map();

  /** @param {import("../connection.js").Host} host */
  constructor(host) {
    this.host = host;
  }

  /** Resolves when everything is being read. @returns {Promise<void>} */
  open() {
    return new Promise((resolve, reject) => {
      const live = () => {
        if (this.#isOpen || this.isOver) return;
        this.#isOpen = true;
        this.#begin();
        resolve();
        if ([...this.host.readings().keys()].some((channel) => !this.round.has(channel))) this.sync();
      };
      this.#run(live).catch((caught) => {
        const error = this.isOver ? new TellwireError("closed", "closed") : asError(caught);
        const isNews = this.#isOpen && !this.isOver;
        this.close();
        if (isNews) this.host.lost(this, error);
        else reject(error);
      });
    });
  }

  close() {
    this.isOver = true;
    this.#life.abort();
    this.#turn.abort();
    for (const timer of this.#leases.values()) this.host.clock.clearTimeout(timer);
  }

  /** Read what is wanted now: a new channel catches up by itself, while the others go on. @returns {Promise<void>[]} */
  sync() {
    const wanted = this.host.readings();
    for (const [channel, reading] of this.round) if (wanted.get(channel) !== reading) this.round.delete(channel);
    this.#isStale = true;
    return this.#isOpen && !this.isOver && !this.#isPreparing ? [this.#refresh()] : [];
  }

  async #refresh() {
    this.#isPreparing = true;
    try {
      while (this.#isStale) {
        this.#isStale = false;
        await this.#prepare(this.#life.signal);
      }
    } catch (error) {
      if (this.isOver) return;
      this.close();
      this.host.lost(this, asError(error));
    } finally {
      this.#isPreparing = false;
    }
    this.#turn.abort();
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
      if (!this.#isOpen) await this.#prepare(this.#life.signal);
      this.round = new Map([...this.host.readings()].filter(([, reading]) => reading.place.cursor !== null));
      if (this.#isOpen) this.#begin();
      const rooms = [...this.host.rooms.keys()];
      const channels = [...new Set([...this.round.keys(), ...rooms])];
      const since = lowest([...this.round.values()].map((reading) => reading.place.cursor));
      if (this.round.size > 0 && since === undefined) throw new TellwireError("disconnected", "the log was replaced");
      try {
        if (channels.length === 0) await this.#idle(signal, live);
        else await this.read({ channels, since, signal, live });
      } catch (error) {
        if (this.isOver) throw error;
        // A turn that was ended is no failure: there is something else to read.
        if (!signal.aborted && !(await this.#blame(asError(error)))) throw error;
      }
    }
    throw new TellwireError("closed", "closed");
  }

  /**
   * Read until the signal says no more; raises what went wrong.
   * @param {{channels: string[], since: string | undefined, signal: AbortSignal, live: () => void}} what
   * @returns {Promise<void>}
   */
  async read(what) {
    throw new TypeError(`${this.name} does not read ${what.channels}`);
  }

  /**
   * The parameters of a reading request.
   * @param {string[]} channels
   * @param {Record<string, string | number | undefined>} [more]
   * @returns {import("../http.js").Query}
   */
  query(channels, more = {}) {
    const { session, rooms } = this.host;
    const watch = rooms.size > 0 ? "watch" : undefined;
    const all = Object.entries({ ...more, session, presence: watch });
    for (const channel of channels) all.unshift(["channel", channel]);
    return all;
  }

  /**
   * @param {import("../http.js").Query} query
   * @param {AbortSignal} signal
   * @param {number} [waitMs]
   * @returns {Promise<import("../wire.js").Page>}
   */
  page(query, signal, waitMs = 0) {
    const timeoutMs = this.host.options.tryTimeoutMs + waitMs;
    return this.host.http.json("v1/messages", { query, signal, timeoutMs });
  }

  /** Take what a page has. @param {import("../wire.js").Page} page */
  take(page, round = this.round) {
    const [epoch = ""] = split(page.cursor) ?? [];
    for (const reading of round.values()) reading.gap(page.gap);
    for (const push of page.messages) this.push(push, epoch, round);
    for (const reading of round.values()) if (reading.isWanted) reading.place.at(page.cursor);
  }

  /** @param {any} push @param {string} epoch */
  push(push, epoch, round = this.round) {
    if (push.type !== "message") this.host.push(push, epoch, this);
    else round.get(push.channel)?.take(push, epoch, this.host.isCurrent(this));
  }

  /** Give every channel a place from which one request can go on. @param {AbortSignal} signal @returns {Promise<void>} */
  async #prepare(signal) {
    const all = () => [...this.host.readings().values()];
    // All that begin now begin together.
    const begin = all().filter(({ place, options: { since, last } }) => {
      return place.cursor === null && (since ?? "now") === "now" && last === undefined;
    });
    if (begin.length > 0) {
      try {
        const page = await this.page(this.query(begin.map(({ channel }) => channel)), signal);
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
        const page = await this.page(this.query([reading.channel], { ...reading.wish, limit: 1000 }), signal);
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
  async #blame(error, among = this.round.values()) {
    if (!ABOUT_A_CHANNEL.has(error.code)) return false;
    const suspects = [...among];
    const [only] = suspects;
    if (only && suspects.length === 1) {
      only.end(error);
      return true;
    }
    let found = false;
    for (const reading of suspects) {
      const { place } = reading;
      const query = this.query([reading.channel], { since: place.cursor ?? undefined, limit: 1 });
      const asked = await this.page(query, this.#life.signal).catch(asError);
      if (!(asked instanceof TellwireError)) continue;
      if (!ABOUT_A_CHANNEL.has(asked.code)) throw asked;
      reading.end(asked);
      found = true;
    }
    return found;
  }

  /** There is nothing to read: only make sure that the server is there. @param {AbortSignal} signal @param {() => void} live */
  async #idle(signal, live) {
    if (!this.#isOpen) {
      await this.page([["session", this.host.session]], signal).catch((caught) => {
        // It misses a channel, and so is there.
        if (asError(caught).code !== "bad_request") throw caught;
      });
      live();
    }
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  }

  /** Wait, but no longer than the signal lets. @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
  pause(ms, signal) {
    return new Promise((resolve) => {
      const timer = this.host.clock.setTimeout(resolve, ms);
      signal.addEventListener("abort", () => {
        this.host.clock.clearTimeout(timer);
        resolve();
      });
    });
  }

  /** @param {string[]} texts @returns {Promise<import("../outbox.js").Answers>} */
  async publish(texts) {
    const timeoutMs = this.host.options.requestTimeoutMs;
    const body = `[${texts.join()}]`;
    const answers = await this.host.http.json("v1/messages", { body, signal: this.#life.signal, timeoutMs });
    return answers.map((/** @type {any} */ answer) => {
      const { error } = answer;
      if (!error) return answer;
      return new TellwireError(error.code, error.message, { head: error.head ?? answer.head, retryAfterMs: error.retry_after_ms });
    });
  }

  /** @param {Record<string, any> & {type: string}} command @param {number} [timeoutMs] @returns {Promise<any>} */
  request({ type, ...fields }, timeoutMs = this.host.options.requestTimeoutMs) {
    const body = JSON.stringify({ session: this.host.session, ...fields });
    return this.host.http.json(`v1/${type}`, { body, signal: this.#life.signal, timeoutMs });
  }

  /**
   * Hold a lease for a member, or give it up; and know the others.
   * @param {import("../presence.js").Presence} room
   * @param {boolean} isWatched
   */
  async present(room, isWatched) {
    const { channel, isIn, state } = room;
    const { clock, options, http } = this.host;
    const { signal } = this.#life;
    const timeoutMs = options.requestTimeoutMs;
    clock.clearTimeout(this.#leases.get(channel));
    const had = this.#leases.delete(channel);
    if (isWatched) room.expect();
    let reply;
    if (isIn || had) {
      reply = await this.request({ type: "presence", channel, enter: isIn, state: isIn ? state : undefined });
      if (isIn && !this.isOver) {
        const renew = () => this.present(room, false).catch(() => this.#leases.set(channel, clock.setTimeout(renew, 5000)));
        this.#leases.set(channel, clock.setTimeout(renew, options.presenceRenewMs));
      }
    }
    if (isWatched) {
      reply = await http.json("v1/presence", { query: [["channel", channel]], signal, timeoutMs });
      room.know(reply);
    }
    return reply;
  }

  /** Something may have happened while nobody looked: ask anew. */
  verify() {
    this.#turn.abort();
  }
}
