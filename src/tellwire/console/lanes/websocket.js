import { Backoff } from "./backoff.js";
import { HANDSHAKE_ANSWER, HANDSHAKE_FIELDS, frameHead, maskedFrameHead, requestSize, utf8 } from "./size.js";
import { address } from "./wire.js";

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

  /** @param {string} channel @param {import("./wire.js").LaneEvents} events */
  constructor(channel, events) {
    this.channel = channel;
    this.events = events;
  }

  /** @param {string} cursor */
  open(cursor) {
    this.#cursor = cursor;
    this.#reconnect_in_ms = undefined;
    this.events.onstate("opening");
    const url = address("v1/ws");
    const handshake = requestSize(url) + HANDSHAKE_FIELDS + HANDSHAKE_ANSWER;
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, "tellwire.v1.json");
    this.#socket = socket;

    socket.onopen = () => {
      this.events.onbytes(0, handshake);
      this.#send({ type: "connect", ref: 1 });
      this.#send({ type: "subscribe", ref: 2, channel: this.channel, since: cursor });
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => {
      // An error while connecting ends here too. From 4500 on, coming back would not help.
      if (event.code >= 4500) this.#fail(event.reason || `the server closed with ${event.code}`);
      else this.#comeBack(event.reason || `closed (${event.code})`);
    };
    this.#listen();
  }

  close() {
    clearTimeout(this.#timer);
    this.#drop();
  }

  /** Let go of the socket; what still comes from it is not ours any more. */
  #drop() {
    clearTimeout(this.#watchdog);
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
        break;
      case "subscribed":
        this.#backoff.reset();
        this.events.onstate("live");
        if (push.gap) this.events.ongap(push.gap);
        this.#cursor = push.cursor;
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
        this.#fail(push.message);
        break;
    }
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

  /** @param {string} why */
  #fail(why) {
    this.#drop();
    this.events.onstate("failed", why);
  }
}
