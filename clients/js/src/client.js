import { systemClock } from "./clock.js";
import { Connection, TRANSPORTS } from "./connection.js";
import { Place } from "./cursor.js";
import { Emitter } from "./emitter.js";
import { TellwireError, asError } from "./errors.js";
import { Http } from "./http.js";
import { Outbox } from "./outbox.js";
import { watchPage } from "./page.js";
import { Presence } from "./presence.js";
import { memoryOf, randomId, sessionOf } from "./storage.js";
import { Subscription } from "./subscription.js";
import { Tokens } from "./tokens.js";
import { PAGE_MAX } from "./transports/lane.js";

/**
 * @typedef {import("./connection.js").TransportName} TransportName
 * @typedef {import("./connection.js").State} State
 * @typedef {import("./wire.js").Signal} Signal
 *
 * @typedef {object} Options
 * @property {import("./tokens.js").TokenSource} [token]
 * @property {TransportName[]} [transports] In the order to try them; default websocket, sse, longpoll, poll. There is
 *   webrtc too, for those who ask for it.
 * @property {string} [session] A secret that keeps the client id; default one that the browser's tab keeps.
 * @property {any} [WebSocket] Where there is no global one, as in Node 20.
 * @property {any} [RTCPeerConnection] Where there is no global one, as in Node.
 * @property {import("./http.js").Fetch} [fetch] In the place of the global one.
 * @property {RequestCredentials} [credentials] Of requests; default `same-origin`.
 * @property {number} [tryTimeoutMs] A transport has to be live within this, else the next is tried; default 5,000.
 * @property {number} [requestTimeoutMs] A request has to be answered within this; default 10,000.
 * @property {number} [upgradeAfterMs] When a better transport is first tried again; default 30,000.
 * @property {number} [heartbeatMs] The server's interval, where it does not tell; default 25,000.
 * @property {number} [longPollMs] How long a long poll waits; default 25,000.
 * @property {number} [pollMs] Between two short polls; default 2,000.
 * @property {number} [outboxMaxMessages] Publishes that may wait; default 1,000.
 * @property {number} [outboxMaxChars] Their JSON together; default 4,000,000.
 * @property {number} [idempotencyWindowMs] How long the server remembers ids; default 300,000.
 * @property {import("./clock.js").Clock} [clock]
 *
 * @typedef {Required<Omit<Options, "token" | "transports" | "session" | "WebSocket" | "RTCPeerConnection">>
 *   & {WebSocket: any, RTCPeerConnection: any}} Settings
 *
 * @typedef {object} PublishOptions
 * @property {string} [id] Default a random one.
 * @property {string} [event]
 * @property {string} [key]
 * @property {boolean} [ephemeral] For who is there now; dropped while there is no connection.
 * @property {string} [expect] Only if the channel's newest message is still at this position, else `conflict`.
 * @property {boolean} [echo] Whether this client is to get it too; default true.
 *
 * @typedef {object} ClientEvents
 * @property {State} state
 * @property {Signal} signal A message to this client alone.
 */

const NAMES = /** @type {TransportName[]} */ (Object.keys(TRANSPORTS));

/** What has to be there. @type {Record<string, "WebSocket" | "RTCPeerConnection" | undefined>} */
const NEEDS = { webrtc: "RTCPeerConnection", websocket: "WebSocket" };

/** @type {Omit<Settings, "fetch" | "WebSocket" | "RTCPeerConnection">} */
const DEFAULTS = {
  credentials: "same-origin",
  tryTimeoutMs: 5000,
  requestTimeoutMs: 10_000,
  upgradeAfterMs: 30_000,
  heartbeatMs: 25_000,
  longPollMs: 25_000,
  pollMs: 2000,
  outboxMaxMessages: 1000,
  outboxMaxChars: 4_000_000,
  idempotencyWindowMs: 300_000,
  clock: systemClock,
};

/**
 * A client of one server. It connects by itself, and comes back by itself, until it is closed.
 * @extends {Emitter<ClientEvents>}
 */
export class Tellwire extends Emitter {
  /** @type {Map<string, Subscription>} */
  #subscriptions = new Map();
  /** @type {import("./connection.js").Host} */
  #host;
  #connection;
  #isStale = false;
  #forgetPage;

  /**
   * @param {string | URL} url Of the server, such as `https://example.org`; in a page also a path.
   * @param {Options} [options]
   */
  constructor(url, { token, transports, session, ...given } = {}) {
    super();
    const { fetch, WebSocket, RTCPeerConnection } = /** @type {any} */ (globalThis);
    const options = /** @type {Settings} */ ({ ...DEFAULTS, fetch, WebSocket, RTCPeerConnection, ...given });
    const { clock } = options;
    const tokens = new Tokens(token);
    const http = new Http(url, tokens, clock, options.fetch, options.credentials);
    const wanted = transports ?? NAMES.slice(1);
    for (const name of wanted) {
      if (!TRANSPORTS[name]) throw new TellwireError("bad_request", `${name} is none of ${NAMES.join(", ")}`);
    }
    const order = wanted.filter((name) => options[NEEDS[name] ?? "clock"]);
    if (order.length === 0) {
      throw new TellwireError("bad_request", `no ${wanted} here: give it as an option`);
    }
    this.#host = {
      options,
      clock,
      tokens,
      http,
      outbox: new Outbox(clock, options),
      session: session ?? sessionOf(http.base),
      client: undefined,
      inbox: new Place(),
      rooms: new Map(),
      pageLimit: PAGE_MAX,
      readings: () => new Map([...this.#subscriptions].filter(([, { isWanted }]) => isWanted)),
      push: (push, epoch, transport) => this.#push(push, epoch, transport),
      gap: (gap) => this.#gap(gap),
      isCurrent: (transport) => transport === this.#connection.current,
      lost: (transport, error) => this.#connection.lost(transport, error),
    };
    const told = {
      adopt: (/** @type {import("./connection.js").Transport} */ transport) => {
        this.#host.outbox.attach(transport);
        for (const room of this.#host.rooms.values()) this.#present(room).catch(() => {});
      },
      part: () => this.#host.outbox.detach(),
      change: (/** @type {State} */ state) => this.#changed(state),
    };
    this.#connection = new Connection(this.#host, order, told, memoryOf(http.base));
    this.#forgetPage = watchPage(this.#connection);
    // Whoever made the client may first say what it is to read, and listen.
    queueMicrotask(() => this.#connection.connect());
  }

  /** @type {State} */
  get state() {
    return this.#connection.state;
  }

  /** The name by which others see this client; known after a first connection or a first presence. */
  get client() {
    return this.#host.client;
  }

  /**
   * Read a channel.
   * @param {string} channel
   * @param {import("./subscription.js").SubscribeOptions} [options]
   */
  subscribe(channel, options = {}) {
    this.#check();
    if (this.#subscriptions.has(channel)) {
      throw new TellwireError("bad_request", `${channel} is read already: use that subscription, or another client`);
    }
    const subscription = new Subscription(channel, options, {
      changed: () => this.#sync(),
      ended: () => {
        if (this.#subscriptions.get(channel) === subscription) this.#subscriptions.delete(channel);
        this.#sync();
      },
    });
    this.#subscriptions.set(channel, subscription);
    this.#syncSoon();
    return subscription;
  }

  /**
   * Publish. Without a connection the message waits for one; the promise is fulfilled when it is in the log.
   * @param {string} channel
   * @param {any} data Any JSON value.
   * @param {PublishOptions} [options]
   * @returns {Promise<import("./wire.js").Published>}
   */
  async publish(channel, data, { id = randomId(), event, key, ephemeral, expect, echo } = {}) {
    this.#check();
    if (data === undefined) throw new TellwireError("invalid_data", "data to publish is undefined");
    const session = echo === false ? this.#host.session : undefined;
    const text = JSON.stringify({ channel, data, id, event, key, ephemeral, expect, echo, session });
    return this.#host.outbox.add(text, ephemeral === true);
  }

  /**
   * Messages of the past, in ascending order: the newest `limit` before a place. Go on with the first one's `position`.
   * @param {string} channel
   * @param {{before?: string | number, limit?: number}} [options]
   * @returns {Promise<import("./wire.js").Page>}
   */
  async history(channel, { before, limit = 100 } = {}) {
    this.#check();
    // Without a place to begin before: what `last` brings.
    const query = /** @type {import("./http.js").Query} */ ([
      ["channel", channel],
      ["before", before],
      ["last", before === undefined ? limit : undefined],
      ["limit", limit],
    ]);
    const page = await this.#host.http.json("v1/messages", { query, timeoutMs: this.#host.options.requestTimeoutMs });
    const [epoch] = page.cursor.split(".");
    for (const message of page.messages) message.position = `${epoch}.${message.seq}`;
    return page;
  }

  /**
   * Watch who is in a channel; `enter` makes this client a member too.
   * @param {string} channel
   * @returns {Presence}
   */
  presence(channel) {
    this.#check();
    const { rooms } = this.#host;
    let room = rooms.get(channel);
    if (!room) {
      room = new Presence(channel, {
        ask: (asked) => this.#present(asked),
        ended: () => void rooms.delete(channel),
      });
      rooms.set(channel, room);
      const made = room;
      queueMicrotask(() => this.#present(made).catch(() => {}));
    }
    return room;
  }

  /**
   * Say something to one client, which has to be in the channel, as this one has to.
   * @param {string} channel
   * @param {string} to Its client id.
   * @param {any} data
   * @param {{event?: string, id?: string, timeoutMs?: number}} [options]
   * @returns {Promise<import("./wire.js").Published>}
   */
  async send(channel, to, data, { event, id = randomId(), timeoutMs } = {}) {
    const { position, duplicate } = await this.#request({ type: "send", channel, to, data, event, id }, timeoutMs);
    return { position, duplicate };
  }

  /**
   * Call a procedure of the application behind the server. It is not tried again: only the caller knows whether that is
   * safe.
   * @param {string} method
   * @param {any} [data]
   * @param {{timeoutMs?: number}} [options]
   * @returns {Promise<any>}
   */
  async call(method, data = null, { timeoutMs = this.#host.options.requestTimeoutMs } = {}) {
    return (await this.#request({ type: "call", method, data, timeout_ms: timeoutMs }, timeoutMs)).data;
  }

  /**
   * A room of pages that talk to each other directly, in a channel.
   * @param {string} channel
   * @param {import("./room/room.js").RoomOptions} [options]
   */
  async room(channel, options = {}) {
    this.#check();
    const { Room } = await import("./room/room.js");
    return new Room(this, channel, options, this.#host);
  }

  /** End everything. What waits to be published is rejected with `closed`. */
  close() {
    this.#connection.close();
  }

  #check() {
    if (this.state.state === "failed") throw this.state.error;
    if (this.state.state === "closed") throw new TellwireError("closed", "this client is closed");
  }

  #syncSoon() {
    if (this.#isStale) return;
    this.#isStale = true;
    // Ten channels that are subscribed to together are asked for together.
    queueMicrotask(() => this.#isStale && this.#sync());
  }

  #sync() {
    this.#isStale = false;
    this.#connection.sync();
  }

  /** Ask about a room, one question after the other: the last answer is the newest. @param {Presence} room */
  async #present(room) {
    while (room.asking) await room.asking;
    const transport = this.#connection.current;
    if (!transport) return; // asked again with the next connection
    const isWatched = this.#host.rooms.get(room.channel) === room;
    room.expect();
    const asked = transport.present(room, isWatched);
    room.asking = asked.catch(() => {});
    try {
      const reply = await asked;
      this.#host.client = reply?.client || this.#host.client;
      room.know(reply, isWatched);
    } catch (error) {
      room.fail(asError(error));
      throw error;
    }
    this.#sync();
  }

  /**
   * Ask over the present connection, or the next one; give up after `timeoutMs`.
   * @param {Record<string, any> & {type: string}} command
   * @param {number} [timeoutMs]
   * @returns {Promise<any>}
   */
  async #request(command, timeoutMs = this.#host.options.requestTimeoutMs) {
    this.#check();
    const { clock } = this.#host;
    /** @type {(() => void) | undefined} */
    let off;
    /** @type {unknown} */
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        const late = () => reject(new TellwireError("timeout", `${command.type}: no answer within ${timeoutMs} ms`));
        timer = clock.setTimeout(late, timeoutMs);
        const begin = () => {
          if (!this.#connection.current) return;
          off?.();
          this.#connection.current.request(command, timeoutMs).then(resolve, (error) => reject(asError(error)));
        };
        off = this.on("state", (state) => {
          if (state.state === "failed") reject(state.error);
          else if (state.state === "closed") reject(new TellwireError("closed", "this client is closed"));
          else begin();
        });
        begin();
      });
    } finally {
      clock.clearTimeout(timer);
      off?.();
    }
  }

  /** @param {any} push @param {string} epoch @param {import("./connection.js").Transport} transport */
  #push(push, epoch, transport) {
    if (push.type === "signal") {
      if (push.seq === undefined ? this.#host.isCurrent(transport) : this.#host.inbox.take(epoch, push.seq)) {
        this.emit("signal", push);
      }
    } else if (["join", "update", "leave", "count"].includes(push.type)) {
      const room = this.#host.rooms.get(push.channel);
      room?.take(push, epoch);
      // Its lease was over, as after a long sleep: whoever wants to be in enters again, with its state.
      const isLost = push.type === "leave" && push.member.client === this.#host.client && room?.isIn;
      if (isLost) this.#present(room).catch(() => {});
    }
  }

  /** @param {import("./wire.js").Gap} gap */
  #gap(gap) {
    if (gap.reason === "epoch") this.#host.inbox.gap(gap);
    for (const room of this.#host.rooms.values()) {
      const isConcerned = gap.reason === "epoch" || gap.channels.includes(`$presence:${room.channel}`);
      if (isConcerned) this.#present(room).catch(() => {});
    }
  }

  /** @param {State} state */
  #changed(state) {
    const error = state.state === "failed" ? state.error : undefined;
    if (state.state === "failed" || state.state === "closed") {
      this.#forgetPage();
      this.#host.outbox.close(error ?? new TellwireError("closed", "this client is closed"));
      for (const subscription of [...this.#subscriptions.values()]) subscription.end(error);
    }
    this.emit("state", state);
  }
}
