import { Place, checkSince } from "./cursor.js";
import { Emitter } from "./emitter.js";
import { TellwireError } from "./errors.js";

/**
 * @typedef {import("./wire.js").Message} Message
 * @typedef {import("./wire.js").Gap} Gap
 *
 * @typedef {object} SubscribeOptions
 * @property {string | number} [since] `now` (the default), `earliest`, a cursor, or a seq.
 * @property {number} [last] Begin before the newest so many, in place of `since`.
 * @property {"catch_up" | "latest" | "disconnect"} [policy] What becomes of a reader that lags.
 * @property {boolean} [unreliable] Messages may be lost and the newest is what counts; over data channels none is sent twice.
 * @property {"oldest" | "newest" | ((gap: Gap) => void)} [onGap] Where to go on after a gap, or who is to be told of it.
 * @property {(message: Message) => void} [onMessage]
 * @property {(error: TellwireError) => void} [onError] The channel cannot be read (any more).
 * @property {number} [queueMaxMessages] Messages that wait for the iterator before the reading pauses; default 1,000.
 *
 * @typedef {object} SubscriptionEvents
 * @property {Message} message
 * @property {Gap} gap
 * @property {{cursor: string | null}} subscribed Reading began, or began again on another connection.
 * @property {TellwireError | undefined} end It is over; with the error where there was one.
 */

/**
 * One reading of one channel: an async iterator of its messages, which also calls those who listen.
 *
 * Messages wait in a queue for the iterator, unless somebody listens. When the queue is full the channel is no longer
 * read, and is read again from the same place when there is room: what waits stays in the server's log.
 * @extends {Emitter<SubscriptionEvents>}
 */
export class Subscription extends Emitter {
  /** @internal */
  place = new Place();
  /** @internal Whether the channel is to be read now. */
  isWanted = true;
  /** Whether it has ended. */
  isEnded = false;
  /** @type {TellwireError | undefined} */
  error;
  /** @type {Message[] | undefined} */
  #queue = [];
  /** Those who wait for a message. @type {(() => void)[]} */
  #waiting = [];
  /** @type {string | null} */
  #handedOut = null;

  /**
   * @param {string} channel
   * @param {SubscribeOptions} options
   * @param {{changed: () => void, ended: () => void}} host
   */
  constructor(channel, options, host) {
    super();
    checkSince(options.since);
    if (options.since !== undefined && options.last !== undefined) {
      throw new TellwireError("bad_request", "since and last exclude each other: give one of them");
    }
    this.channel = channel;
    this.options = options;
    this.host = host;
    /** Resolves when the channel is being read; rejects when it cannot be. @type {Promise<void>} */
    this.ready = new Promise((resolve, reject) => {
      this.on("subscribed", () => resolve());
      this.on("end", (error) => reject(error ?? new TellwireError("closed", `${channel}: unsubscribed`)));
    });
    this.ready.catch(() => {}); // most do not ask
    if (typeof options.since === "string" && options.since.includes(".")) this.place.at(options.since);
    if (options.onMessage) this.on("message", options.onMessage);
    if (options.onError) this.on("end", (error) => error && options.onError?.(error));
    if (typeof options.onGap === "function") this.on("gap", options.onGap);
  }

  /** Where the application is: to be kept, and given as `since` to go on from here another day. */
  get cursor() {
    return this.#queue?.length ? this.#handedOut : this.place.cursor;
  }

  /** Read no more. */
  unsubscribe() {
    this.end();
  }

  /**
   * @override
   * @template {keyof SubscriptionEvents} K
   * @param {K} name
   * @param {(value: SubscriptionEvents[K]) => void} listener
   */
  on(name, listener) {
    const off = super.on(name, listener);
    if (name === "message") {
      const queued = this.#queue ?? [];
      this.#queue = undefined;
      for (const message of queued) listener(/** @type {any} */ (message));
      this.#resume();
    }
    return off;
  }

  /** @returns {AsyncIterator<Message, undefined>} */
  [Symbol.asyncIterator]() {
    this.#queue ??= [];
    return {
      next: async () => {
        for (;;) {
          const message = this.#queue?.shift();
          if (message) {
            this.#handedOut = message.position ?? this.#handedOut;
            this.#resume();
            return { done: false, value: message };
          }
          if (this.error) throw this.error;
          if (this.isEnded) return { done: true, value: undefined };
          await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
        }
      },
      return: async () => {
        this.unsubscribe();
        return { done: true, value: undefined };
      },
    };
  }

  /** What a server is asked for this reading. @internal */
  get wish() {
    const { since, last, policy, onGap } = this.options;
    const from = this.place.cursor === null ? { since, last } : { since: this.place.cursor };
    return { ...from, policy, on_gap: typeof onGap === "string" ? onGap : undefined };
  }

  /**
   * A message came. @internal
   * @param {Message} message
   * @param {string} epoch That of the connection.
   * @param {boolean} isCurrent Whether the connection is the one in use, and not one that comes or goes.
   */
  take(message, epoch, isCurrent) {
    if (!this.isWanted) return;
    const before = this.place.cursor;
    if (message.seq === undefined) {
      if (!isCurrent) return;
    } else {
      if (!this.place.take(epoch, message.seq)) return;
      message.position = `${epoch}.${message.seq}`;
    }
    if (this.#queue) {
      if (this.#queue.length === 0) this.#handedOut = before;
      this.#queue.push(message);
      if (this.#queue.length >= (this.options.queueMaxMessages ?? 1000)) {
        this.isWanted = false;
        this.host.changed();
      }
      this.#wake();
    }
    this.emit("message", message);
  }

  /** @internal @param {Gap | null | undefined} gap */
  gap(gap) {
    if (gap?.channels.includes(this.channel) && this.place.gap(gap)) this.emit("gap", gap);
  }

  /** It is being read now. @internal */
  began() {
    this.emit("subscribed", { cursor: this.place.cursor });
  }

  /** @internal @param {TellwireError} [error] */
  end(error) {
    if (this.isEnded) return;
    this.isEnded = true;
    this.isWanted = false;
    this.error = error;
    this.#wake();
    this.host.ended();
    this.emit("end", error);
  }

  #wake() {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #resume() {
    const room = (this.options.queueMaxMessages ?? 1000) / 2;
    if (this.isWanted || this.isEnded || (this.#queue?.length ?? 0) > room) return;
    this.isWanted = true;
    this.host.changed();
  }
}
