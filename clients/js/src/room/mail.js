import { asError } from "../errors.js";
import { randomId } from "../storage.js";

/** Text in one direct message: the server takes 65,536 bytes of data. */
const BATCH_CHARS = 64_000;
const SIGNALS_MAX = 512;
const FRAMES_MAX_BYTES = 256 * 1024;
const AGAIN = new Set([
  "timeout", "disconnected", "rate_limited", "unavailable", "draining", "internal", "not_found", "forbidden",
]); // prettier-ignore
const RETRY_MS = 500;
const RETRY_MAX_MS = 8000;

/** @param {Uint8Array} bytes */
export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** @param {string} text */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

/**
 * Direct messages to one peer: signals first, then frames of streams, as many in one message as fit, and one message
 * after the other, so that they arrive as they were sent. One that may not have arrived is sent again under its id.
 */
export class Mail {
  /** @type {any[]} */
  #signals = [];
  /** @type {[stream: number, text: string][]} */
  #frames = [];
  #framesBytes = 0;
  #isSending = false;
  #isClosed = false;

  /**
   * @param {{send: (data: any, id: string) => Promise<unknown>, clock: import("../clock.js").Clock,
   *   head: () => object, lost: (error: import("../errors.js").TellwireError) => void}} host
   */
  constructor(host) {
    this.host = host;
  }

  /** There is room for frames again. */
  onroom = () => {};

  get hasRoom() {
    return this.#framesBytes < FRAMES_MAX_BYTES;
  }

  get isIdle() {
    return this.#frames.length === 0;
  }

  /** @param {object} signal */
  signal(signal) {
    if (this.#signals.length < SIGNALS_MAX) this.#signals.push({ ...this.host.head(), ...signal });
    void this.#send();
  }

  /** @param {number} stream @param {Uint8Array} bytes */
  frame(stream, bytes) {
    const text = toBase64(bytes);
    this.#frames.push([stream, text]);
    this.#framesBytes += text.length;
    void this.#send();
  }

  /** Forget what has not been sent: the direct way is there. */
  dropFrames() {
    this.#frames = [];
    this.#framesBytes = 0;
  }

  close() {
    this.#isClosed = true;
    this.#signals = [];
    this.dropFrames();
  }

  async #send() {
    if (this.#isSending) return;
    this.#isSending = true;
    // What is said in one turn goes together.
    await Promise.resolve();
    try {
      while (!this.#isClosed && this.#signals.length + this.#frames.length > 0) {
        await this.#deliver(this.#batch());
        if (!this.#isClosed) this.onroom();
      }
    } catch (error) {
      this.close();
      this.host.lost(asError(error));
    } finally {
      this.#isSending = false;
    }
  }

  #batch() {
    const { host } = this;
    let chars = 0;
    const fits = (/** @type {number} */ more) => chars === 0 || chars + more <= BATCH_CHARS;
    const signals = [];
    while (this.#signals.length > 0) {
      const { length } = JSON.stringify(this.#signals[0]);
      if (!fits(length)) break;
      chars += length;
      signals.push(this.#signals.shift());
    }
    /** @type {[number, string][]} */
    const frames = [];
    while (this.#frames.length > 0 && fits(/** @type {[number, string]} */ (this.#frames[0])[1].length + 8)) {
      const frame = /** @type {[number, string]} */ (this.#frames.shift());
      chars += frame[1].length + 8;
      this.#framesBytes -= frame[1].length;
      frames.push(frame);
    }
    return { ...host.head(), ...(signals.length > 0 ? { signals } : {}), ...(frames.length > 0 ? { frames } : {}) };
  }

  /** @param {any} data */
  async #deliver(data) {
    const { host } = this;
    const id = randomId();
    for (let waitMs = RETRY_MS; !this.#isClosed; waitMs = Math.min(2 * waitMs, RETRY_MAX_MS)) {
      try {
        await host.send(data, id);
        return;
      } catch (error) {
        const { code, retryAfterMs } = asError(error);
        // The other may come in again, and so may we; what is wrong with the message itself stays wrong.
        if (!AGAIN.has(code)) throw error;
        await new Promise((resolve) => host.clock.setTimeout(() => resolve(undefined), retryAfterMs ?? waitMs));
      }
    }
  }
}
