import { Backoff } from "./backoff.js";
import { credentials } from "./credentials.js";
import { HANDSHAKE_ANSWER, HANDSHAKE_FIELDS, frameHead, maskedFrameHead, requestSize, utf8 } from "./size.js";
import { FINAL_CLOSES, address } from "./wire.js";

/** The refs of its commands; those of later ones to `presence` go on from there. */
const CONNECT = 1;
const SUBSCRIBE = 2;
const PRESENCE = 3;

/** WebSocket: one connection both ways. It does not reconnect by itself, so this does. */
export class WebSocketLane {
  #cursor = "";
  #backoff = new Backoff();
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watchdog;
  #heartbeat_ms = 25_000;
  /** @type {number | null | undefined} */
  #reconnect_in_ms;

  /** @type {string | undefined} */
  #why;
  /** Whether the server has this client for a member, over this connection. */
  isIn = false;

  /**
   * @param {string} channel
   * @param {import("./wire.js").LaneEvents} events
   * @param {import("./wire.js").Attendance} attendance
   */
  constructor(channel, events, attendance) {
    this.channel = channel;
    this.events = events;
    this.attendance = attendance;
  }

  /** @param {string} cursor */
  open(cursor) {
    this.#cursor = cursor;
    this.#reconnect_in_ms = undefined;
    this.#why = undefined;
    this.events.onstate("opening");
    const url = address("v1/ws");
    const handshake = requestSize(url) + HANDSHAKE_FIELDS + HANDSHAKE_ANSWER;
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, "tellwire.v1.json");
    this.#socket = socket;

    socket.onopen = () => {
      this.events.onbytes(0, handshake);
      const { session, token } = credentials;
      this.#send({ type: "connect", ref: CONNECT, session, ...(token ? { token } : {}) });
      this.#send({ type: "subscribe", ref: SUBSCRIBE, channel: this.channel, since: cursor });
      if (this.attendance.wish(true)) this.#enter({ watch: true, since: cursor });
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => {
      // An error while connecting ends here too. From 4500 on, coming back would not help.
      const why = this.#why ?? event.reason;
      const code = FINAL_CLOSES.get(event.code);
      if (code || event.code >= 4500) this.#fail(why || `the server closed with ${event.code}`, code);
      else this.#comeBack(why || `closed (${event.code})`);
    };
    this.#listen();
  }

  close() {
    clearTimeout(this.#timer);
    this.#drop();
  }

  /** Tell the others something new of oneself; false where that is not possible here and now. */
  tell() {
    if (!this.isIn) return false;
    this.#enter({});
    return true;
  }

  /** @param {{ watch?: boolean, since?: string }} options */
  #enter(options) {
    const state = this.attendance.state();
    this.#send({ type: "presence", ref: PRESENCE, channel: this.channel, enter: true, state, ...options });
  }

  /** Let go of the socket; what still comes from it is not ours any more. */
  #drop() {
    clearTimeout(this.#watchdog);
    this.isIn = false;
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = undefined;
  }

  /** @param {object} command */
  #send(command) {
    const text = JSON.stringify(command);
    const size = utf8(text);
    this.#socket?.send(text);
    this.events.onbytes(size + maskedFrameHead(size), 0);
  }

  /** @param {string} text */
  #receive(text) {
    this.#listen();
    const size = utf8(text);
    this.events.onbytes(size + frameHead(size), 0);
    const push = JSON.parse(text);
    switch (push.type) {
      case "message":
        if (push.seq !== undefined) this.#cursor = `${this.#cursor.split(".")[0]}.${push.seq}`;
        this.events.onmessages([push], this.#cursor);
        break;
      case "connected":
        this.#heartbeat_ms = push.heartbeat_ms;
        this.events.onidentity(push.user, push.expires_in_ms);
        break;
      case "subscribed":
        this.#backoff.reset();
        this.events.onstate("live");
        if (push.gap) this.events.ongap(push.gap);
        this.#cursor = push.cursor;
        break;
      case "presence":
        this.isIn = true;
        this.events.onpresence(push);
        break;
      case "join":
      case "update":
      case "leave":
      case "count":
      case "signal":
        this.#reach(push.seq);
        this.events.onpush(push, this.#cursor);
        this.events.onmessages([], this.#cursor);
        break;
      case "gap":
        if (push.reason === "epoch") this.#cursor = push.to;
        this.events.ongap(push);
        break;
      case "heartbeat":
        this.#cursor = push.cursor;
        this.events.onmessages([], push.cursor);
        break;
      case "closing":
        this.#reconnect_in_ms = push.reconnect_in_ms;
        break;
      case "error":
        // Without a ref it is the connection that ends, and its close code says whether to come back.
        if (push.ref === CONNECT || push.ref === SUBSCRIBE) this.#fail(push.message, push.code);
        else if (push.ref === undefined) this.#why = push.message;
        break;
    }
  }

  /** Who comes and goes is read beside the messages, and may be behind them for a moment. @param {number} seq */
  #reach(seq) {
    const [epoch, newest] = this.#cursor.split(".");
    if (seq > Number(newest)) this.#cursor = `${epoch}.${seq}`;
  }

  /** Nothing heard for two and a half heartbeats: the connection is dead, whatever the browser thinks. */
  #listen() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#comeBack("silent for too long"), this.#heartbeat_ms * 2.5);
  }

  /** @param {string} why */
  #comeBack(why) {
    this.#drop();
    const wait_ms = this.#reconnect_in_ms ?? this.#backoff.next();
    this.events.onstate("waiting", why);
    this.#timer = setTimeout(() => this.open(this.#cursor), wait_ms);
  }

  /** @param {string} why @param {string} [code] */
  #fail(why, code) {
    this.#drop();
    this.events.onstate("failed", why, code);
  }
}
