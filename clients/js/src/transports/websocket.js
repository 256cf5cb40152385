import { TellwireError, asError, closed, told } from "../errors.js";
import { split } from "../cursor.js";

/** @typedef {import("../subscription.js").Subscription} Subscription */

/** What a subprotocol may be made of (RFC 6455, section 4.1: a token of RFC 9110). */
const PROTOCOL = /^[\w!#$%&'*+.^`|~-]+$/;

/**
 * What messages go over both ways: a WebSocket, or what behaves like one.
 * @typedef {object} Socket
 * @property {number} readyState
 * @property {((event: any) => void) | null} onopen
 * @property {((event: any) => void) | null} onmessage
 * @property {((event: any) => void) | null} onclose
 * @property {((event: any) => void) | null} onerror
 * @property {(text: string) => void} send
 * @property {() => void} close
 * @property {TellwireError | undefined} [refusal] Why the server would not have it.
 * @property {(fields: string) => import("../wire.js").Published | undefined} [spare] Sends what may be lost.
 *
 * Prepares to connect; the token is one that cannot be told on the way, and has to be with the first command.
 * @typedef {(host: import("../connection.js").Host) => Promise<{connect: () => Socket, token?: string | undefined}>} Dial
 */

/** @type {Dial} */
async function dialWebSocket({ options, tokens, http }) {
  const token = await tokens.get();
  const url = new URL("v1/ws", http.base);
  url.protocol = url.protocol.replace("http", "ws");
  const protocols = ["tellwire.v1.json"];
  // In the handshake whoever decides about it sees the token; but not every text can stand there.
  const isEarly = token !== undefined && PROTOCOL.test(token);
  if (isEarly) protocols.push(`tellwire.token.${token}`);
  return { connect: () => new options.WebSocket(url, protocols), token: isEarly ? undefined : token };
}

/** One connection both ways: commands up, replies and pushes down (spec/protocol.md, sections 6, 7, 10 and 17). */
export class WebSocketTransport {
  batches = 16;
  /** What is read, and whether the server said so yet. @type {Map<string, {reading: Subscription, live: boolean}>} */
  #read = new Map();
  /** Channels that the server reads for this connection by itself. @type {Set<string>} */
  #own = new Set();
  /** @type {Map<number, {resolve: (reply: any) => void, reject: (error: TellwireError) => void}>} */
  #pending = new Map();
  #ref = 0;
  #epoch = "";
  /** @type {Socket | undefined} */
  #socket;
  #isConnected = false;
  #isOpen = false;
  #isOver = false;
  /** How much was heard, and when last. */
  #heard = 0;
  #heardAt = 0;
  #heartbeatMs;
  /** @type {unknown} */
  #watchdog;
  /** @type {unknown} */
  #refresh;
  /** What the server said before it closed. @type {TellwireError | undefined} */
  #said;
  /** @type {(error: TellwireError) => void} */
  #over = () => {};

  /** @param {import("../connection.js").Host} host @param {string} name @param {Dial} dial */
  constructor(host, name = "websocket", dial = dialWebSocket) {
    this.host = host;
    this.name = name;
    this.dial = dial;
    this.#heartbeatMs = host.options.heartbeatMs;
  }

  /** Resolves when everything is being read. */
  async open() {
    const { host } = this;
    const { connect, token } = await this.dial(host);
    if (this.#isOver) throw new TellwireError("closed", "closed");
    await new Promise((resolve, reject) => {
      this.#over = reject;
      const socket = (this.#socket = connect());
      socket.onopen = () => {
        const { session } = host;
        this.#command({ type: "connect", session, token, in_order: true }).then((reply) => {
          this.#connected(reply);
          return this.#sync();
        }).then(resolve, reject);
      };
      socket.onmessage = ({ data }) => {
        let push;
        try {
          push = JSON.parse(data);
        } catch (error) {
          return this.#end(asError(error)); // it was damaged on its way, and with it the place in the log
        }
        this.#receive(push);
      };
      socket.onclose = (event) => this.#end(this.#said ?? socket.refusal ?? closed(event.code, event.reason));
      // A close follows; but in Node, messages after one that was damaged may come before it.
      socket.onerror = () => this.#end(this.#said ?? closed(1006));
    });
    this.#isOpen = true;
    this.#over = (error) => host.lost(this, error);
    this.sync();
  }

  close() {
    this.#end(new TellwireError("disconnected", "the connection was closed"), false);
  }

  /** @param {TellwireError} error */
  #end(error, isNews = true) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.host.clock.clearTimeout(this.#watchdog);
    this.host.clock.clearTimeout(this.#refresh);
    const socket = this.#socket;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    if (error.closeCode === 1009) this.host.outbox.refuseLargest();
    for (const { reject } of this.#pending.values()) reject(new TellwireError("disconnected", error.message));
    this.#pending.clear();
    // The opening is over in any case; a connection that was in use is lost only where we did not close it ourselves.
    if (isNews || !this.#isOpen) this.#over(error);
  }

  sync() {
    if (this.#isOpen) void this.#sync();
  }

  /** Read what is wanted now, and no more. */
  async #sync() {
    const wanted = this.host.readings();
    for (const [channel, { reading }] of this.#read) {
      if (wanted.get(channel) === reading) continue;
      this.#read.delete(channel);
      this.#command({ type: "unsubscribe", channel }).catch(() => {});
    }
    const missing = [...wanted].filter(([channel]) => !this.#read.has(channel));
    await Promise.all(missing.map(([, reading]) => this.#subscribe(reading)));
  }

  /** @param {Subscription} reading */
  async #subscribe(reading) {
    const { channel, options: { unreliable } } = reading; // prettier-ignore
    const entry = { reading, live: false };
    this.#read.set(channel, entry);
    try {
      await this.#command({ type: "subscribe", channel, unreliable, ...reading.wish }, (reply) => {
        if (this.#read.get(channel) !== entry) return;
        entry.live = true;
        this.#gap(reply.gap);
        this.#epoch = split(reply.cursor)?.[0] ?? this.#epoch;
        reading.place.at(reply.cursor);
        reading.began();
      });
    } catch (caught) {
      const error = asError(caught);
      if (this.#isOver) return; // whoever opened the connection, or lost it, knows
      // A server that is busy has said nothing about the channel.
      if (error.isBusy || error.code === "internal") this.#end(error);
      else if (this.#own.delete(channel)) {
        // The token has it read by itself, but from another place.
        this.#command({ type: "unsubscribe", channel }).catch(() => {});
        if (this.#read.get(channel) === entry) await this.#subscribe(reading);
      } else if (this.#read.get(channel) === entry) {
        this.#read.delete(channel);
        reading.end(error);
      }
    }
  }

  /** @param {string[]} texts @returns {Promise<import("../outbox.js").Answers>} */
  publish(texts) {
    return Promise.all(
      texts.map(async (text) => {
        try {
          const { position, duplicate } = this.#socket?.spare?.(text) ?? (await this.#send(text, "publish"));
          return { position, duplicate };
        } catch (error) {
          return asError(error);
        }
      }),
    );
  }

  /** @param {Record<string, any> & {type: string}} command @returns {Promise<any>} */
  request(command) {
    return this.#command(command);
  }

  /** @param {import("../presence.js").Presence} room @param {boolean} isWatched */
  present(room, isWatched) {
    const since = this.host.inbox.cursor ?? undefined;
    return this.#command({ type: "presence", ...room.wish, watch: isWatched, since });
  }

  /** Something may have happened while nobody looked: is it still there? */
  verify() {
    if (!this.#isConnected) return;
    this.#command({ type: "ping" }).catch(() => {});
    this.#listen(Math.min(this.host.options.tryTimeoutMs, this.#patienceMs()));
  }

  /**
   * @param {Record<string, any> & {type: string}} command
   * @param {(reply: any) => void} [take] Called before anything that comes after the reply.
   */
  #command({ type, ...fields }, take) {
    return this.#send(JSON.stringify(fields), type, take);
  }

  /** @param {string} fields JSON @param {string} type @param {(reply: any) => void} [take] @returns {Promise<any>} */
  #send(fields, type, take) {
    return new Promise((resolve, reject) => {
      const socket = this.#socket;
      if (this.#isOver || socket?.readyState !== 1) {
        return reject(new TellwireError("disconnected", "there is no connection"));
      }
      const ref = ++this.#ref;
      this.#pending.set(ref, {
        resolve: (reply) => {
          take?.(reply);
          resolve(reply);
        },
        reject,
      });
      socket.send(`{"type":"${type}","ref":${ref}${fields === "{}" ? "}" : `,${fields.slice(1)}`}`);
    });
  }

  /** @param {any} push */
  #receive(push) {
    this.#heard += 1;
    this.#heardAt = this.host.clock.now();
    // What the server says last before it closes is why.
    if (push.type !== "closing") this.#said = undefined;
    if (push.ref !== undefined) {
      const waiting = this.#pending.get(push.ref);
      this.#pending.delete(push.ref);
      if (push.type === "error") waiting?.reject(told(push));
      else waiting?.resolve(push);
      return;
    }
    switch (push.type) {
      case "message": {
        const entry = this.#read.get(push.channel);
        if (entry?.live) entry.reading.take(push, this.#epoch, this.host.isCurrent(this));
        break;
      }
      case "gap":
        this.#gap(push);
        break;
      case "heartbeat":
        for (const { reading, live } of this.#read.values()) if (live) reading.place.at(push.cursor);
        this.host.inbox.at(push.cursor);
        break;
      case "closing":
        this.#said ??= closed(push.code, push.reason, push.reconnect_in_ms);
        break;
      case "error":
        this.#said = told(push);
        break;
      case "subscribed":
        this.#own.add(push.channel);
        break;
      case "unsubscribed": {
        const entry = this.#read.get(push.channel);
        this.#read.delete(push.channel);
        entry?.reading.end(new TellwireError(push.code ?? "forbidden", `the server ended the reading of ${push.channel}`));
        break;
      }
      default:
        this.host.push(push, this.#epoch, this);
    }
  }

  /** @param {import("../wire.js").Gap | null | undefined} gap */
  #gap(gap) {
    if (!gap) return;
    if (gap.reason === "epoch") this.#epoch = split(gap.to)?.[0] ?? this.#epoch;
    for (const { reading, live } of this.#read.values()) if (live) reading.gap(gap);
    this.host.gap(gap);
  }

  /** @param {any} reply */
  #connected(reply) {
    this.#isConnected = true;
    this.#epoch = reply.epoch;
    this.#heartbeatMs = this.host.options.heartbeatMs = reply.heartbeat_ms;
    this.host.client = reply.client;
    if (this.host.inbox.cursor === null) this.host.inbox.at(reply.cursor);
    this.#expires(reply.expires_in_ms);
    this.#listen(this.#patienceMs());
  }

  #patienceMs() {
    return this.#heartbeatMs * 2.5;
  }

  /** Take the connection for dead when nothing is heard for so long from now. @param {number} ms */
  #listen(ms) {
    const { clock } = this.host;
    const heard = this.#heard;
    clock.clearTimeout(this.#watchdog);
    this.#watchdog = clock.setTimeout(() => {
      if (this.#heard !== heard) this.#listen(Math.max(0, this.#heardAt + this.#patienceMs() - clock.now()));
      else this.#end(new TellwireError("disconnected", "the server is silent", { closeCode: 4000 }));
    }, ms);
  }

  /** Get a fresh token shortly before this one is over. @param {number | undefined | null} inMs */
  #expires(inMs) {
    const { clock, tokens } = this.host;
    if (inMs === undefined || inMs === null || !tokens.canRenew) return;
    this.#refresh = clock.setTimeout(() => {
      tokens.forget();
      tokens
        .get()
        .then((token) => this.#command({ type: "refresh", token }))
        .then((reply) => this.#expires(reply.expires_in_ms))
        .catch(() => {}); // the server closes when it is over, and then another try is made
    }, Math.min(Math.max(inMs - 15_000, inMs / 2), 2 ** 31 - 1));
  }
}
