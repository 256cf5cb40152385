/**
 * A server in memory that speaks the protocol, and fails as it is told to: for tests of what a client does then.
 *
 * Everything that crosses the wire is an event; `fuse` counts them down, and the one at which it burns through cuts all
 * connections, before or after whatever the event is about.
 */
export class FakeServer {
  epoch = "aaaa";
  /** @type {any[]} */
  log = [];
  /** Newest `history` messages of each channel are kept. */
  history = Infinity;
  /** Requests as `GET /v1/messages`, commands as `ws connect`. @type {string[]} */
  heard = [];
  /** Open WebSockets, streams and waiting polls. @type {Set<any>} */
  connections = new Set();
  /** Refuses connections. */
  isDown = false;
  /** Swallows whatever comes, without a word. */
  isSilent = false;
  /** Transports that are not let through: how. @type {Record<string, "refuse" | "hang" | "buffer" | undefined>} */
  blocked = {};
  /** Makes the answer to a request or command, in place of the usual one. @type {(what: string, fields: any) => any} */
  answer = () => undefined;
  heartbeatMs = 25_000;
  /** What becomes of bytes on their way down; of a frame, undefined is one that cannot be read. @type {(bytes: Uint8Array) => Uint8Array | undefined} */
  damage = (bytes) => bytes;
  fuse = Infinity;
  onBurn = () => {};
  /** Refuses publishes for a moment, as a server does whose broker is away. */
  isBusy = false;
  /** Counts publishes down; the one at which it ends is refused for a moment. */
  patience = Infinity;
  /** @type {Map<string, string>} */
  #ids = new Map();

  /** @param {import("./fake-clock.js").FakeClock} clock */
  constructor(clock) {
    this.clock = clock;
    const server = this;
    this.WebSocket = class extends FakeSocket {
      /** @param {URL} url @param {string} protocol */
      constructor(url, protocol) {
        super(server, url, protocol);
      }
    };
  }

  get head() {
    return this.log.length;
  }

  get cursor() {
    return `${this.epoch}.${this.head}`;
  }

  /** Something crosses the wire; false where it does not arrive any more. */
  cross() {
    this.fuse -= 1;
    if (this.fuse !== 0) return true;
    this.cut();
    this.onBurn();
    return false;
  }

  /** Cut every connection. */
  cut() {
    for (const connection of [...this.connections]) connection.cut();
  }

  /** From now on nothing gets through, and no connection of today ever will again. */
  blackHole() {
    this.isSilent = true;
    for (const connection of this.connections) connection.isDead = true;
  }

  /** Lose the log. @param {string} epoch */
  wipe(epoch) {
    this.epoch = epoch;
    this.log = [];
    this.#ids.clear();
    this.cut();
  }

  /** @param {string} channel @param {any} data @param {any} [fields] */
  publish(channel, data, { id, event = "message", key, ephemeral, expect } = /** @type {any} */ ({})) {
    const message = { type: "message", channel, event, data, key, time: this.clock.now() };
    if (ephemeral) {
      for (const connection of [...this.connections]) connection.message({ ...message, id: id ?? "", ephemeral });
      return { position: null, duplicate: false };
    }
    const known = this.#ids.get(`${channel} ${id}`);
    if (known) return { position: known, duplicate: true };
    const newest = this.log.findLast((each) => each.channel === channel);
    const head = `${this.epoch}.${newest?.seq ?? 0}`;
    if (expect !== undefined && expect !== head) return { error: { code: "conflict", message: "a newer message", head } };
    const seq = this.head + 1;
    const position = `${this.epoch}.${seq}`;
    this.log.push({ ...message, seq, id: id ?? position });
    if (id) this.#ids.set(`${channel} ${id}`, position);
    for (const connection of [...this.connections]) connection.message(this.log[seq - 1]);
    return { position, duplicate: false };
  }

  /** Read after a place. @param {string[]} channels @param {string | number | null} [since] @param {number | null} [last] */
  read(channels, since, last) {
    const mine = this.log.filter(({ channel }) => channels.includes(channel));
    const kept = channels.flatMap((name) => mine.filter(({ channel }) => channel === name).slice(-this.history));
    kept.sort((a, b) => a.seq - b.seq);
    /** @type {any} */
    let gap = null;
    let after = this.head;
    const lost = mine.filter((each) => !kept.includes(each));
    if (last !== null && last !== undefined) after = (kept.at(-last)?.seq ?? 1) - 1;
    else if (since === "earliest") after = 0;
    else if (since !== undefined && since !== null && since !== "now") {
      const [epoch, seq] = String(since).includes(".") ? String(since).split(".") : [this.epoch, since];
      after = Number(seq);
      if (epoch !== this.epoch || after > this.head) {
        gap = { from: since, to: `${this.epoch}.${lost.at(-1)?.seq ?? 0}`, reason: "epoch", channels };
        after = 0;
      } else if (lost.at(-1)?.seq > after) {
        const concerned = channels.filter((name) => lost.some(({ channel, seq }) => channel === name && seq > after));
        gap = { from: since, to: `${this.epoch}.${lost.at(-1).seq}`, reason: "trimmed", channels: concerned };
      }
    }
    const cursor = `${this.epoch}.${after}`;
    return { messages: kept.filter(({ seq }) => seq > after), cursor, gap, head: this.cursor };
  }

  /** @param {URL | string} address @param {any} init @returns {Promise<Response>} */
  fetch = async (address, { method = "GET", body, signal, headers = {} } = {}) => {
    const url = new URL(address);
    const path = url.pathname.replace(/^.*(?=\/v1\/)/, "");
    const query = url.searchParams;
    const channels = query.getAll("channel");
    const wait_s = Number(query.get("wait") ?? 0);
    const kind = path.endsWith("events") ? "sse" : wait_s > 0 ? "longpoll" : method === "GET" ? "poll" : "post";
    this.heard.push(`${method} ${path}`);
    const aborted = new Promise((_, reject) => {
      const abort = () => reject(new DOMException("aborted", "AbortError"));
      if (signal?.aborted) abort();
      signal?.addEventListener("abort", abort);
    });
    aborted.catch(() => {});
    const refusal = new TypeError("fetch failed");
    if (this.isDown || this.blocked[kind] === "refuse") throw refusal;
    if (this.isSilent || this.blocked[kind] === "hang") return /** @type {any} */ (await aborted);
    if (!this.cross()) throw refusal;
    const fields = body ? JSON.parse(body) : { query, headers };
    const made = this.answer(`${method} ${path}`, fields);
    if (made) return made;
    if (method === "POST") {
      const queue = new FakeQueue(this, true);
      const answers = fields.map((/** @type {any} */ each) => queue.publish(each));
      if (!this.cross()) throw refusal;
      return new Response(/** @type {BodyInit} */ (this.damage(new TextEncoder().encode(JSON.stringify(answers)))));
    }
    if (channels.length === 0) return json({ code: "bad_request", detail: "channel is missing" }, 400);
    const since = query.get("since");
    if (kind === "sse") return this.#stream(channels, since, signal);
    const last = query.get("last");
    const limit = Number(query.get("limit") ?? 1000);
    const page = () => {
      const { messages, gap, head } = this.read(channels, since, last === null ? null : Number(last));
      const some = messages.slice(0, limit);
      const cursor = some.length < messages.length ? `${this.epoch}.${some.at(-1).seq}` : head;
      return { messages: some, gap, cursor };
    };
    let now = page();
    if (wait_s > 0 && now.messages.length === 0 && !now.gap) {
      const { promise, resolve, reject } = deferred();
      const timer = this.clock.setTimeout(resolve, wait_s * 1000);
      const poll = { cut: () => reject(refusal), message: (/** @type {any} */ m) => channels.includes(m.channel) && resolve() };
      this.connections.add(poll);
      try {
        await Promise.race([promise, aborted]);
        // Reading again brings all that came; a dead line brings nothing.
        if (/** @type {any} */ (poll).isDead) await aborted;
        now = page();
      } finally {
        this.connections.delete(poll);
        this.clock.clearTimeout(timer);
      }
    }
    if (!this.cross()) throw refusal;
    return new Response(/** @type {BodyInit} */ (this.damage(new TextEncoder().encode(JSON.stringify(now)))));
  };

  /** @param {string[]} channels @param {string | null} since @param {AbortSignal} signal */
  #stream(channels, since, signal) {
    const { messages, cursor, gap } = this.read(channels, since);
    const encoder = new TextEncoder();
    /** @type {any} */
    let controller;
    const body = new ReadableStream({ start: (made) => void (controller = made) });
    const end = (/** @type {Error} */ error) => {
      if (!this.connections.delete(stream)) return;
      this.clock.clearTimeout(stream.beat);
      controller.error(error);
    };
    const write = (/** @type {string} */ text) => {
      // What a proxy keeps back it keeps back for ever, here.
      stream.isDead ||= this.blocked.sse === "buffer";
      if (stream.isDead || !this.connections.has(stream) || !this.cross()) return;
      // Cut in two, as a network does.
      const bytes = this.damage(encoder.encode(text)) ?? encoder.encode(text);
      controller.enqueue(bytes.slice(0, bytes.length / 2));
      controller.enqueue(bytes.slice(bytes.length / 2));
    };
    const stream = {
      isDead: false,
      beat: /** @type {any} */ (undefined),
      cut: () => end(new TypeError("terminated")),
      write,
      message: (/** @type {any} */ message) => {
        if (!channels.includes(message.channel)) return;
        const id = message.seq === undefined ? "" : `id: ${this.epoch}.${message.seq}\n`;
        write(`${id}data: ${JSON.stringify(message)}\n\n`);
      },
      close: (/** @type {any} */ push) => {
        write(`event: closing\ndata: ${JSON.stringify({ type: "closing", ...push })}\n\n`);
        if (this.connections.delete(stream)) controller.close();
      },
    };
    this.connections.add(stream);
    signal?.addEventListener("abort", () => end(new DOMException("aborted", "AbortError")));
    write("retry: 1000\n\n");
    if (gap) write(`${gap.reason === "epoch" ? `id: ${gap.to}\n` : ""}event: gap\ndata: ${JSON.stringify({ type: "gap", ...gap })}\n\n`);
    write(`id: ${cursor}\n\n`);
    for (const message of messages) stream.message(message);
    const beat = () => {
      write(": \n\n");
      if (this.connections.has(stream)) stream.beat = this.clock.setTimeout(beat, this.heartbeatMs);
    };
    if (this.connections.has(stream)) stream.beat = this.clock.setTimeout(beat, this.heartbeatMs);
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }
}

/** The publishes of one connection or request: behind one that was refused for a moment all are. */
class FakeQueue {
  #isHeld = false;

  /** @param {FakeServer} server @param {boolean} keepsOrder */
  constructor(server, keepsOrder) {
    this.server = server;
    this.keepsOrder = keepsOrder;
  }

  /** @param {any} fields */
  publish({ again, ...fields }) {
    const { server } = this;
    if (again) this.#isHeld = false;
    if (!this.#isHeld) {
      server.patience -= 1;
      if (server.patience !== 0 && !server.isBusy) return server.publish(fields.channel, fields.data, fields);
      this.#isHeld = this.keepsOrder;
    }
    return { error: { code: "unavailable", message: "later" } };
  }
}

class FakeSocket {
  readyState = 0;
  isDead = false;
  /** @type {any} */ onopen = null;
  /** @type {any} */ onmessage = null;
  /** @type {any} */ onclose = null;
  /** @type {any} */ onerror = null;
  /** @type {Set<string>} */
  channels = new Set();
  /** @type {any} */
  beat;

  /** @param {FakeServer} server @param {URL} url @param {string} protocol */
  constructor(server, url, protocol) {
    this.server = server;
    this.url = url;
    this.protocol = protocol;
    this.queue = new FakeQueue(server, false);
    server.heard.push("ws");
    queueMicrotask(() => {
      if (server.isDown || server.blocked.websocket === "refuse" || !server.cross()) return this.end(1006);
      if (server.isSilent || server.blocked.websocket === "hang") return;
      if (this.readyState !== 0) return;
      this.readyState = 1;
      server.connections.add(this);
      this.onopen?.({});
      const beat = () => {
        this.write({ type: "heartbeat", cursor: server.cursor });
        if (server.connections.has(this)) this.beat = server.clock.setTimeout(beat, server.heartbeatMs);
      };
      this.beat = server.clock.setTimeout(beat, server.heartbeatMs);
    });
  }

  /** @param {number} code @param {string} [reason] */
  end(code, reason = "") {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.server.connections.delete(this);
    this.server.clock.clearTimeout(this.beat);
    queueMicrotask(() => this.onclose?.({ code, reason }));
  }

  cut() {
    this.end(1006);
  }

  close() {
    this.end(1005);
  }

  /** @param {any} push @param {number} code */
  say(push, code) {
    this.write(push);
    queueMicrotask(() => this.end(code, push.reason));
  }

  /** @param {any} push */
  write(push) {
    if (this.isDead || this.readyState !== 1 || !this.server.cross()) return;
    const bytes = this.server.damage(new TextEncoder().encode(JSON.stringify(push)));
    queueMicrotask(() => (bytes ? this.onmessage?.({ data: new TextDecoder().decode(bytes) }) : this.onerror?.({})));
  }

  /** @param {any} message */
  message(message) {
    if (this.channels.has(message.channel)) this.write(message);
  }

  /** @param {string} text */
  send(text) {
    queueMicrotask(() => this.take(JSON.parse(text)));
  }

  /** @param {any} command */
  take({ type, ref, ...fields }) {
    const { server } = this;
    if (this.isDead || this.readyState !== 1 || !server.cross()) return;
    server.heard.push(`ws ${type}`);
    const made = server.answer(`ws ${type}`, fields);
    if (typeof made === "number") return this.say({ type: "closing", code: made, reason: "told so" }, made);
    if (made) return this.write({ ref, ...made });
    if (type === "connect") {
      this.queue.keepsOrder = fields.in_order === true;
      const { epoch, cursor, heartbeatMs } = server;
      this.write({ type: "connected", ref, client: "c1", session: fields.session, epoch, cursor, heartbeat_ms: heartbeatMs });
    } else if (type === "subscribe") {
      const { messages, cursor, gap } = server.read([fields.channel], fields.since, fields.last);
      this.channels.add(fields.channel);
      this.write({ type: "subscribed", ref, channel: fields.channel, cursor, gap });
      for (const message of messages) this.write(message);
    } else if (type === "unsubscribe") {
      this.channels.delete(fields.channel);
      this.write({ type: "unsubscribed", ref, channel: fields.channel });
    } else if (type === "publish") {
      const { error, ...answer } = /** @type {any} */ (this.queue.publish(fields));
      this.write(error ? { type: "error", ref, ...error } : { type: "published", ref, ...answer });
    } else if (type === "ping") this.write({ type: "pong", ref });
    else this.write({ type: "error", ref, code: "unknown_command", message: type });
  }
}

/** @param {any} body @param {number} [status] */
export function json(body, status = 200) {
  return new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json" } });
}

export function deferred() {
  let resolve = /** @type {() => void} */ (() => {});
  let reject = /** @type {(error: Error) => void} */ (() => {});
  const promise = /** @type {Promise<void>} */ (new Promise((yes, no) => ([resolve, reject] = [yes, no])));
  return { promise, resolve, reject };
}
