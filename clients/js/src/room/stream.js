import { TellwireError } from "../errors.js";

/**
 * What frames are written to: a data channel, or the channel through the server.
 * @typedef {object} Lane
 * @property {"direct" | "channel"} name
 * @property {number} windowBytes What may be on its way without having been acknowledged.
 * @property {boolean} isWritable
 * @property {(stream: number, frame: Uint8Array<ArrayBuffer>) => void} write
 */

const ACK = 0;
const AGAIN = 1;
const BYTES = 2;
const TEXT = 3;
const HEAD_BYTES = 5;

/** A message of an application; with its head and in base64 it has to fit into one of the server's (65,536). */
export const MESSAGE_MAX_BYTES = 45_000;
const QUEUE_MAX_BYTES = 8 * 1024 * 1024;
const ACK_EVERY_BYTES = 64 * 1024;
const ACK_AFTER_MS = 50;
/** Without an acknowledgement for so long, what is on its way is written again. */
const AGAIN_AFTER_MS = 5000;

const encoder = new TextEncoder();

/**
 * Messages to one peer, each once and in order, whatever they go over, and from one lane to another: they are numbered,
 * acknowledged, and kept until then.
 */
export class Stream {
  /** @type {{seq: number, bytes: Uint8Array<ArrayBuffer>}[]} Not acknowledged; the first `#written` of them are on their way. */
  #queue = [];
  #written = 0;
  #flyingBytes = 0;
  #queuedBytes = 0;
  #nextSeq = 1;
  /** What comes next from the other side. */
  #expected = 1;
  #unackedBytes = 0;
  #askedAgain = 0;
  /** @type {unknown} */
  #ackTimer;
  /** @type {unknown} */
  #againTimer;
  /** @type {Lane | undefined} */
  #lane;
  #isClosed = false;
  /** @type {{below: number, resolve: () => void, reject: (error: Error) => void}[]} */
  #waiting = [];

  /**
   * @param {number} number Of the stream, among those to this peer.
   * @param {import("../clock.js").Clock} clock
   * @param {(data: string | Uint8Array<ArrayBuffer>) => void} deliver
   */
  constructor(number, clock, deliver) {
    this.number = number;
    this.clock = clock;
    this.deliver = deliver;
  }

  /** Bytes that wait, or are not acknowledged yet. */
  get bufferedAmount() {
    return this.#queuedBytes;
  }

  /** @param {string | Uint8Array} data */
  send(data) {
    if (this.#isClosed) throw new TellwireError("closed", "this peer is gone");
    const isText = typeof data === "string";
    const body = isText ? encoder.encode(data) : data;
    if (body.length > MESSAGE_MAX_BYTES) {
      throw new TellwireError("too_large", `a message has at most ${MESSAGE_MAX_BYTES} bytes, this one ${body.length}`);
    }
    if (this.#queuedBytes + body.length > QUEUE_MAX_BYTES) {
      throw new TellwireError("outbox_full", "more is waiting for this peer than may: wait until bufferedAmount is lower");
    }
    const bytes = this.#frame(isText ? TEXT : BYTES, this.#nextSeq, body);
    this.#queue.push({ seq: this.#nextSeq, bytes });
    this.#nextSeq += 1;
    this.#queuedBytes += bytes.length;
    this.pump();
  }

  /** Wait until no more than so many bytes wait. @param {number} below @returns {Promise<void>} */
  drained(below) {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) reject(new TellwireError("closed", "this peer is gone"));
      else if (this.#queuedBytes <= below) resolve();
      else this.#waiting.push({ below, resolve, reject });
    });
  }

  /** Go on over another lane, with whatever is not acknowledged. @param {Lane | undefined} lane */
  use(lane) {
    if (lane === this.#lane) return;
    this.#lane = lane;
    this.#rewind();
    if (this.#expected > 1) this.#ack(ACK);
  }

  /** Write what may be written; the lane has room again. */
  pump() {
    const lane = this.#lane;
    while (lane && this.#written < this.#queue.length && lane.isWritable && this.#flyingBytes < lane.windowBytes) {
      const { bytes } = /** @type {{bytes: Uint8Array<ArrayBuffer>}} */ (this.#queue[this.#written]);
      this.#written += 1;
      this.#flyingBytes += bytes.length;
      lane.write(this.number, bytes);
    }
    if (this.#written > 0 && this.#againTimer === undefined) this.#arm();
  }

  /** A frame came, over whichever lane. @param {Uint8Array<ArrayBuffer>} frame */
  take(frame) {
    if (frame.length < HEAD_BYTES || this.#isClosed) return;
    const seq = new DataView(frame.buffer, frame.byteOffset).getUint32(1);
    const kind = frame[0];
    if (kind === ACK || kind === AGAIN) {
      this.#acked(seq);
      // Once for what is missing: the frames after it are on their way still, and each of them says the same.
      if (kind === AGAIN && this.#queue[0]?.seq === seq) this.#rewind();
      return;
    }
    if (kind !== BYTES && kind !== TEXT) return;
    if (seq !== this.#expected) {
      // Nothing is kept that comes too early: it stays with the sender, who is told what is wanted, once.
      if (seq < this.#expected) this.#ackSoon(ACK_EVERY_BYTES);
      else if (this.#askedAgain !== this.#expected) {
        this.#askedAgain = this.#expected;
        this.#ack(AGAIN);
      }
      return;
    }
    this.#expected += 1;
    this.#ackSoon(frame.length);
    const body = frame.subarray(HEAD_BYTES);
    this.deliver(kind === TEXT ? new TextDecoder().decode(body) : body);
  }

  close() {
    this.#isClosed = true;
    this.clock.clearTimeout(this.#ackTimer);
    this.clock.clearTimeout(this.#againTimer);
    this.#lane = undefined;
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const { reject } of this.#waiting.splice(0)) reject(new TellwireError("closed", "this peer is gone"));
  }

  /** @param {number} next */
  #acked(next) {
    let gone = 0;
    while (gone < this.#queue.length && /** @type {{seq: number}} */ (this.#queue[gone]).seq < next) gone += 1;
    // What was never sent cannot have arrived.
    gone = Math.min(gone, this.#written);
    if (gone === 0) return;
    for (const { bytes } of this.#queue.splice(0, gone)) {
      this.#queuedBytes -= bytes.length;
      this.#flyingBytes -= bytes.length;
    }
    this.#written -= gone;
    this.clock.clearTimeout(this.#againTimer);
    this.#againTimer = undefined;
    this.pump();
    this.#waiting = this.#waiting.filter(({ below, resolve }) => {
      if (this.#queuedBytes > below) return true;
      resolve();
      return false;
    });
  }

  #rewind() {
    this.#written = 0;
    this.#flyingBytes = 0;
    this.pump();
  }

  #arm() {
    this.#againTimer = this.clock.setTimeout(() => {
      this.#againTimer = undefined;
      // A lane that is full has only to become empty.
      if (this.#lane?.isWritable) this.#rewind();
      else if (this.#lane) this.#arm();
    }, AGAIN_AFTER_MS);
  }

  /** @param {number} bytes */
  #ackSoon(bytes) {
    this.#unackedBytes += bytes;
    if (this.#unackedBytes >= ACK_EVERY_BYTES) this.#ack(ACK);
    else this.#ackTimer ??= this.clock.setTimeout(() => this.#ack(ACK), ACK_AFTER_MS);
  }

  /** @param {number} kind */
  #ack(kind) {
    this.clock.clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    this.#unackedBytes = 0;
    this.#lane?.write(this.number, this.#frame(kind, this.#expected, new Uint8Array(0)));
  }

  /** @param {number} kind @param {number} seq @param {Uint8Array} body */
  #frame(kind, seq, body) {
    const frame = new Uint8Array(HEAD_BYTES + body.length);
    frame[0] = kind;
    new DataView(frame.buffer).setUint32(1, seq);
    frame.set(body, HEAD_BYTES);
    return frame;
  }
}
