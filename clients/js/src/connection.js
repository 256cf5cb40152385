import { Backoff } from "./backoff.js";
import { TellwireError, asError } from "./errors.js";
import { HttpTransport } from "./transports/http.js";
import { LongPollLane } from "./transports/longpoll.js";
import { PollLane } from "./transports/poll.js";
import { SseLane } from "./transports/sse.js";
import { WebSocketTransport } from "./transports/websocket.js";

/**
 * A way to move the readers' cursors. It opens once and is over once; coming back is the connection's business.
 * @typedef {object} Transport
 * @property {string} name
 * @property {number} batches See outbox.js.
 * @property {() => Promise<void>} open Resolves when everything wanted is being read; rejects where that fails.
 * @property {() => void} close Nothing is told from here on.
 * @property {() => void} sync What is wanted has changed.
 * @property {(texts: string[]) => Promise<import("./outbox.js").Answers>} publish
 * @property {(command: Record<string, any> & {type: string}, timeoutMs?: number) => Promise<any>} request
 * @property {(room: import("./presence.js").Presence, isWatched: boolean) => Promise<import("./wire.js").PresenceReply | undefined>} present
 *   Be in a channel or not, watch it or not; and who is there.
 * @property {() => void} verify Is the server still there? Where not, that is to be noticed soon.
 *
 * What a transport knows of the client.
 * @typedef {object} Host
 * @property {import("./client.js").Settings} options
 * @property {import("./clock.js").Clock} clock
 * @property {import("./http.js").Http} http
 * @property {import("./tokens.js").Tokens} tokens
 * @property {import("./outbox.js").Outbox} outbox
 * @property {string} session
 * @property {string | undefined} client
 * @property {import("./cursor.js").Place} inbox Up to where this client had what was said to it alone.
 * @property {Map<string, import("./presence.js").Presence>} rooms
 * @property {number} pageLimit Messages that are asked for at once: fewer after a page that did not get through.
 * @property {() => Map<string, import("./subscription.js").Subscription>} readings What is to be read now.
 * @property {(push: any, epoch: string, transport: Transport) => void} push Takes what is no message.
 * @property {(gap: import("./wire.js").Gap) => void} gap Takes what a gap means but for messages.
 * @property {(transport: Transport) => boolean} isCurrent
 * @property {(transport: Transport, error: TellwireError) => void} lost It was open, and is over.
 *
 * @typedef {"webrtc" | "websocket" | "sse" | "longpoll" | "poll"} TransportName
 *
 * @typedef {{state: "connecting"} | {state: "connected", transport: string}
 *   | {state: "disconnected", error: TellwireError | undefined, retryInMs: number | undefined}
 *   | {state: "failed", error: TellwireError} | {state: "closed"}} State
 */

/** The best first; the first of all only for those who ask for it. @type {Record<string, (host: Host) => Transport>} */
export const TRANSPORTS = {
  webrtc: (host) => new WebSocketTransport(host, "webrtc", async () => {
    const { DataChannels } = await import("./transports/webrtc.js");
    return { connect: () => new DataChannels(host) };
  }), // prettier-ignore
  websocket: (host) => new WebSocketTransport(host),
  sse: (host) => new HttpTransport(host, "sse", SseLane),
  longpoll: (host) => new HttpTransport(host, "longpoll", LongPollLane),
  poll: (host) => new HttpTransport(host, "poll", PollLane),
};
const LONGEST_UPGRADE_MS = 600_000;
/** A connection that was there for so long has worked. */
const STEADY_MS = 1000;

/**
 * Keeps one transport open: tries them in order, comes back when one is lost, and looks out for a better one.
 *
 *     connecting → connected → disconnected → connecting …
 *     from each of them: failed (the server's answer would be the same again), closed (the application's wish)
 */
export class Connection {
  /** @type {State} */
  state = { state: "connecting" };
  /** @type {Transport | undefined} */
  current;
  /** One that is being opened. @type {Transport | undefined} */
  #candidate;
  /** Goes up with everything that makes what is under way outdated. */
  #turn = 0;
  /** @type {unknown} */
  #timer;
  /** @type {unknown} */
  #upgrade;
  #upgradeMs;
  #isSuspended = false;
  #adoptedAt = 0;
  /** How many connections in a row were lost as soon as they were there. */
  #shortLived = 0;
  /** Whether the token was renewed since a connection worked. */
  #isRenewed = false;

  /**
   * @param {Host} host
   * @param {string[]} order Names of the transports that may be tried, the best first.
   * @param {{adopt: (transport: Transport) => void, part: () => void, change: (state: State) => void}} told
   * @param {{get: () => string | null, set: (name: string) => void}} memory What worked the last time.
   */
  constructor(host, order, told, memory) {
    this.host = host;
    this.order = order;
    this.told = told;
    this.memory = memory;
    this.backoff = new Backoff(host.clock);
    this.#upgradeMs = host.options.upgradeAfterMs;
  }

  /** @param {State} state */
  #change(state) {
    this.state = state;
    this.told.change(state);
  }

  get isOver() {
    return this.state.state === "closed" || this.state.state === "failed";
  }

  /** Connect now, whatever was waited for. */
  connect() {
    if (this.isOver || this.#isSuspended) return;
    void this.#cycle();
  }

  async #cycle() {
    const turn = this.#reset();
    this.#change({ state: "connecting" });
    const names = this.#names();
    /** @type {TellwireError | undefined} */
    let last;
    for (let at = 0; at < names.length; at += 1) {
      try {
        const transport = await this.#try(/** @type {string} */ (names[at]));
        if (turn !== this.#turn) return transport.close();
        return this.#adopt(transport);
      } catch (caught) {
        if (turn !== this.#turn) return;
        last = asError(caught);
        if (last.code === "expired" && this.#renew()) at -= 1;
        else if (this.isOver) return;
        else if (last.isFinal) return this.#fail(last);
        else if (last.isBusy || last.code === "expired") break;
      }
    }
    this.#wait(last);
  }

  /** In which order to try: first what worked the last time, but last what worked only for a moment, twice. */
  #names() {
    const known = this.order.indexOf(this.memory.get() ?? "");
    if (known < 0) return this.order;
    const [better, name, worse] = [this.order.slice(0, known), this.order.slice(known, known + 1), this.order.slice(known + 1)];
    return this.#shortLived < 2 ? [...name, ...better, ...worse] : [...worse, ...better, ...name];
  }

  /** Whether another token can be tried at once: once, until one has worked. */
  #renew() {
    if (this.#isRenewed) return false;
    this.#isRenewed = true;
    try {
      this.host.tokens.expire();
      return true;
    } catch (error) {
      this.#fail(asError(error));
      return false;
    }
  }

  /** Open a transport within its deadline. @param {string} name */
  async #try(name) {
    const { clock, options } = this.host;
    const transport = /** @type {(host: Host) => Transport} */ (TRANSPORTS[name])(this.host);
    this.#candidate = transport;
    /** @type {unknown} */
    let timer;
    const deadline = new Promise((_, reject) => {
      const late = () => reject(new TellwireError("timeout", `${name}: not live within ${options.tryTimeoutMs} ms`));
      timer = clock.setTimeout(late, options.tryTimeoutMs);
    });
    try {
      await Promise.race([transport.open(), deadline]);
      return transport;
    } catch (error) {
      transport.close();
      throw error;
    } finally {
      clock.clearTimeout(timer);
      if (this.#candidate === transport) this.#candidate = undefined;
    }
  }

  /** Use a transport from now on; only then the one before is closed. @param {Transport} transport */
  #adopt(transport) {
    const before = this.current;
    this.current = transport;
    this.#adoptedAt = this.host.clock.now();
    this.memory.set(transport.name);
    this.told.adopt(transport);
    before?.close();
    this.#change({ state: "connected", transport: transport.name });
    this.#planUpgrade();
  }

  /** A transport that was open is over. @param {Transport} transport @param {TellwireError} error */
  lost(transport, error) {
    transport.close();
    if (transport !== this.current) return;
    const turn = this.#reset();
    // One that ends as soon as it has begun did not work, whatever it said.
    if (this.host.clock.now() - this.#adoptedAt >= STEADY_MS) {
      this.backoff.reset();
      this.#shortLived = 0;
      this.#isRenewed = false;
    } else this.#shortLived += 1;
    this.#part();
    if (error.code === "expired" && this.#renew()) return this.connect();
    if (turn !== this.#turn || this.isOver) return;
    if (error.isFinal) this.#fail(error);
    else this.#wait(error);
  }

  /** @param {TellwireError | undefined} error */
  #wait(error) {
    if (error?.code === "expired") this.host.tokens.forget();
    const retryInMs = this.backoff.next(error?.retryAfterMs);
    this.#timer = this.host.clock.setTimeout(() => this.connect(), retryInMs);
    this.#change({ state: "disconnected", error, retryInMs });
  }

  /** @param {TellwireError} error */
  #fail(error) {
    this.#reset();
    this.#part();
    this.#change({ state: "failed", error });
  }

  close() {
    if (this.isOver) return;
    this.#reset();
    this.#part();
    this.#change({ state: "closed" });
  }

  /** Stop whatever is waited for or tried. */
  #reset() {
    const { clock } = this.host;
    clock.clearTimeout(this.#timer);
    clock.clearTimeout(this.#upgrade);
    this.#candidate?.close();
    this.#candidate = undefined;
    this.#turn += 1;
    return this.#turn;
  }

  #part() {
    const { current } = this;
    this.current = undefined;
    this.told.part();
    current?.close();
  }

  /** What is wanted has changed. */
  sync() {
    for (const transport of [this.current, this.#candidate]) transport?.sync();
  }

  /** Look out for a transport that is better than the one in use, later and later. */
  #planUpgrade() {
    const { clock } = this.host;
    const better = this.order.slice(0, this.order.indexOf(this.current?.name ?? ""));
    if (better.length === 0) {
      this.#upgradeMs = this.host.options.upgradeAfterMs;
      return;
    }
    this.#upgrade = clock.setTimeout(() => void this.#tryBetter(better), this.#upgradeMs);
    this.#upgradeMs = Math.min(this.#upgradeMs * 2, LONGEST_UPGRADE_MS);
  }

  /** @param {string[]} names */
  async #tryBetter(names) {
    const turn = this.#turn;
    for (const name of names) {
      const transport = await this.#try(name).catch(() => undefined);
      if (turn !== this.#turn) return transport?.close();
      if (transport) return this.#adopt(transport);
    }
    this.#planUpgrade();
  }

  /** There is no network, or the page is put away: let go, until `resume`. @param {string} why */
  suspend(why) {
    if (this.isOver || this.#isSuspended) return;
    this.#isSuspended = true;
    this.#reset();
    this.#part();
    this.#change({ state: "disconnected", error: new TellwireError("disconnected", why), retryInMs: undefined });
  }

  resume() {
    if (!this.#isSuspended) return this.wake();
    this.#isSuspended = false;
    this.backoff.reset();
    this.connect();
  }

  /** Something has changed for the better: do not wait any more, and see whether the connection is still there. */
  wake() {
    if (this.state.state === "disconnected") this.connect();
    else this.current?.verify();
  }
}
