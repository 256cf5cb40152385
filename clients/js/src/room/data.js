import { TellwireError } from "../errors.js";
import { Emitter } from "../emitter.js";
import { MESSAGE_MAX_BYTES } from "./stream.js";

/** Messages that are kept for an application that does not listen yet. */
const EARLY_MAX = 256;
const UNRELIABLE_MAX_BYTES = 64 * 1024;

const TEXT = 1;
const encoder = new TextEncoder();

/**
 * @typedef {object} DataEvents
 * @property {string | Uint8Array<ArrayBuffer>} message
 */

/**
 * Messages to and from one peer, of up to 45,000 bytes. It is there at both ends as soon as the peer is, and stays for as
 * long as the peer does, whatever path there is: what is sent before one is open waits, or is dropped if it is unreliable.
 * @extends {Emitter<DataEvents>}
 */
export class PeerData extends Emitter {
  /** @type {(string | Uint8Array<ArrayBuffer>)[]} */
  #early = [];

  /** @param {boolean} isReliable */
  constructor(isReliable) {
    super();
    /** Whether all arrives, once and in order; else what is late is dropped. */
    this.isReliable = isReliable;
  }

  /** Bytes that wait to be sent, or to be acknowledged. */
  get bufferedAmount() {
    return 0;
  }

  /** @param {string | Uint8Array | ArrayBuffer} data */
  send(data) {
    void data;
  }

  /** Wait until no more than so many bytes wait. @param {number} [below] @returns {Promise<void>} */
  async drained(below = 65_536) {
    void below;
  }

  /**
   * @template {keyof DataEvents} K
   * @param {K} name
   * @param {(value: DataEvents[K]) => void} listener
   * @override
   */
  on(name, listener) {
    const off = super.on(name, listener);
    for (const data of this.#early.splice(0)) this.emit("message", data);
    return off;
  }

  /** @internal @param {string | Uint8Array<ArrayBuffer>} data */
  deliver(data) {
    if (this.hears("message")) this.emit("message", data);
    else if (this.#early.length < EARLY_MAX) this.#early.push(data);
  }
}

/** What a stream carries. */
export class ReliableData extends PeerData {
  /** @param {import("./stream.js").Stream} stream */
  constructor(stream) {
    super(true);
    this.stream = stream;
  }

  /** @override */
  get bufferedAmount() {
    return this.stream.bufferedAmount;
  }

  /** @param {string | Uint8Array | ArrayBuffer} data @override */
  send(data) {
    this.stream.send(data instanceof ArrayBuffer ? new Uint8Array(data) : data);
  }

  /** @override */
  async drained(below = 65_536) {
    await this.stream.drained(below);
  }
}

/** What goes as it can, or not at all. */
export class UnreliableData extends PeerData {
  /** @param {() => {write: (frame: Uint8Array<ArrayBuffer>) => void, bufferedAmount: number} | undefined} wire */
  constructor(wire) {
    super(false);
    this.wire = wire;
  }

  /** @override */
  get bufferedAmount() {
    return this.wire()?.bufferedAmount ?? 0;
  }

  /** @param {string | Uint8Array | ArrayBuffer} data @override */
  send(data) {
    const body = typeof data === "string" ? encoder.encode(data) : data instanceof ArrayBuffer ? new Uint8Array(data) : data;
    if (body.length > MESSAGE_MAX_BYTES) {
      throw new TellwireError("too_large", `a message has at most ${MESSAGE_MAX_BYTES} bytes, this one ${body.length}`);
    }
    const wire = this.wire();
    // What would have to wait would be late.
    if (!wire || wire.bufferedAmount > UNRELIABLE_MAX_BYTES) return;
    const frame = new Uint8Array(1 + body.length);
    frame[0] = typeof data === "string" ? TEXT : 0;
    frame.set(body, 1);
    wire.write(frame);
  }

  /** @internal @param {Uint8Array<ArrayBuffer>} frame */
  take(frame) {
    if (frame.length === 0) return;
    const body = frame.subarray(1);
    this.deliver(frame[0] === TEXT ? new TextDecoder().decode(body) : body);
  }
}
