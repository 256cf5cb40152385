import { Emitter } from "../emitter.js";
import { TellwireError, asError } from "../errors.js";
import { Sha256 } from "./sha256.js";

/** What goes into one message: also through the server, with all that is around it. */
const CHUNK_BYTES = 32 * 1024;
const READ_BYTES = 1024 * 1024;
/** What may be in the stream, and not have arrived. */
const AHEAD_BYTES = 2 * 1024 * 1024;
/** What whoever receives lets come beyond what it has stored. */
const WINDOW_BYTES = 8 * 1024 * 1024;
const TELL_EVERY_BYTES = 1024 * 1024;
/** What is put together, so that a browser may keep it outside its memory. */
const BLOB_BYTES = 4 * 1024 * 1024;

/** @typedef {import("./peer.js").Peer} Peer */
/** @typedef {{bytes: number, size: number}} Progress */

/** @param {Peer | undefined} peer @param {object} what */
export function tell(peer, what) {
  try {
    peer?.files.send(JSON.stringify(what));
  } catch {
    // it is gone, and is told anew when it comes back
  }
}

/**
 * A file on its way, either way.
 * @extends {Emitter<{progress: Progress}>}
 */
class Transfer extends Emitter {
  /** Bytes that have arrived. */
  bytes = 0;
  /** @internal @type {unknown} */
  timer;
  /** @type {(value: any) => void} */
  #resolve = () => {};
  /** @type {(error: TellwireError) => void} */
  #reject = () => {};
  #isOver = false;
  /** @protected @type {Promise<any>} */
  outcome = new Promise((resolve, reject) => {
    this.#resolve = resolve;
    this.#reject = reject;
  });

  /** @param {string} id @param {string} client @param {number} size @param {() => void} ended */
  constructor(id, client, size, ended) {
    super();
    this.id = id;
    this.client = client;
    this.size = size;
    this.ended = ended;
    this.outcome.catch(() => {}); // whoever waits is told; nobody has to
  }

  get isOver() {
    return this.#isOver;
  }

  /** @protected @param {number} bytes */
  progress(bytes) {
    if (bytes <= this.bytes) return;
    this.bytes = bytes;
    this.emit("progress", { bytes, size: this.size });
  }

  /** @protected @param {any} value */
  finish(value) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.ended();
    this.#resolve(value);
  }

  /** @internal @param {TellwireError} error */
  fail(error) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.ended();
    this.#reject(error);
  }
}

/** A file that is sent. `done` is fulfilled when it has arrived as it was, by its SHA-256. */
export class OutgoingFile extends Transfer {
  /** @type {Peer | undefined} */
  #peer;
  #hash = new Sha256();
  #round = 0;
  #granted = 0;
  #wake = () => {};

  /**
   * @param {string} id
   * @param {number} number
   * @param {string} client
   * @param {Blob & {name?: string}} file
   * @param {() => void} ended
   */
  constructor(id, number, client, file, ended) {
    super(id, client, file.size, ended);
    this.number = number;
    this.file = file;
  }

  /** @returns {Promise<void>} */
  get done() {
    return this.outcome;
  }

  /** Do not send it after all. */
  cancel() {
    this.#say({ t: "cancel", id: this.id });
    this.pause();
    this.fail(new TellwireError("closed", "the transfer was cancelled"));
  }

  /** @internal @param {Peer} peer */
  offer(peer) {
    this.pause();
    this.#peer = peer;
    const { name = "file", size, type } = this.file;
    this.#say({ t: "offer", id: this.id, n: this.number, name, size, type });
  }

  /** @internal */
  pause() {
    this.#round += 1;
    this.#peer = undefined;
    this.#wake();
  }

  /** @internal @param {any} said */
  take({ t, from, at, reason }) {
    if (t === "accept" && Number.isSafeInteger(from) && from >= 0 && from <= this.size) {
      this.#round += 1;
      this.#granted = from + WINDOW_BYTES;
      this.#wake();
      this.#send(from, this.#round).catch((error) => {
        if (asError(error).code !== "closed") this.fail(asError(error)); // else it goes on when the peer is back
      });
    } else if (t === "have" && Number.isSafeInteger(at)) {
      this.#granted = Math.max(this.#granted, Math.min(at, this.size) + WINDOW_BYTES);
      this.progress(Math.min(at, this.size));
      this.#wake();
    } else if (t === "done") {
      this.progress(this.size);
      this.finish(undefined);
    } else if (t === "bad") this.#refused("corrupt", "it did not arrive as it was: its checksum is another");
    else if (t === "refuse") this.#refused("refused", `the peer refused it: ${String(reason).slice(0, 80)}`);
    else if (t === "cancel") this.#refused("closed", "the peer cancelled it");
  }

  /** @param {string} code @param {string} says */
  #refused(code, says) {
    this.pause();
    this.fail(new TellwireError(code, says));
  }

  /** @param {object} what */
  #say(what) {
    tell(this.#peer, what);
  }

  /** @param {number} from @param {number} round */
  async #send(from, round) {
    const { file, number } = this;
    for (let at = from; at < file.size; ) {
      while (at >= this.#granted && round === this.#round) await new Promise((wake) => (this.#wake = () => wake(undefined)));
      if (round !== this.#round || !this.#peer) return;
      const part = new Uint8Array(await file.slice(at, at + READ_BYTES).arrayBuffer());
      // What is sent again was counted before.
      const isNew = this.#hash.length - at;
      if (isNew < part.length) this.#hash.update(part.subarray(isNew));
      for (let within = 0; within < part.length; within += CHUNK_BYTES) {
        const stream = this.#peer?.files;
        if (round !== this.#round || !stream) return;
        await stream.drained(AHEAD_BYTES);
        if (round !== this.#round) return;
        const chunk = part.subarray(within, within + CHUNK_BYTES);
        const frame = new Uint8Array(12 + chunk.length);
        const view = new DataView(frame.buffer);
        view.setUint32(0, number);
        view.setFloat64(4, at + within);
        frame.set(chunk, 12);
        stream.send(frame);
      }
      at += part.length;
    }
    if (round !== this.#round) return;
    this.#digest ??= this.#hash.hex();
    this.#say({ t: "end", id: this.id, sha256: this.#digest });
  }

  /** @type {string | undefined} */
  #digest;
}

/** A file that a peer offers. Nothing of it comes until it is accepted. */
export class IncomingFile extends Transfer {
  #hash = new Sha256();
  #received = 0;
  #stored = 0;
  #told = 0;
  #isAccepted = false;
  /** @type {Uint8Array<ArrayBuffer>[]} */
  #parts = [];
  #partsBytes = 0;
  /** @type {Blob[]} */
  #blobs = [];
  /** @type {WritableStreamDefaultWriter<Uint8Array> | undefined} */
  #writer;
  #writing = Promise.resolve();

  /**
   * @param {Peer} peer
   * @param {{id: string, number: number, size: number, name: string, type: string}} what
   * @param {() => void} ended
   */
  constructor(peer, { id, number, size, name, type }, ended) {
    super(id, peer.client, size, ended);
    /** @type {Peer | undefined} */
    this.peer = peer;
    this.number = number;
    /** As the peer calls it: show it, do not believe it. */
    this.name = name;
    this.type = type;
  }

  /**
   * Let it come. Fulfilled when all is there and its SHA-256 is right: with a Blob, or where `sink` takes the bytes (as
   * a file that the user has chosen does) with undefined.
   * @param {{sink?: WritableStream<Uint8Array>}} [options]
   * @returns {Promise<Blob | undefined>}
   */
  accept({ sink } = {}) {
    if (this.#isAccepted || this.isOver) return this.outcome;
    this.#isAccepted = true;
    this.#writer = sink?.getWriter();
    this.#say({ t: "accept", id: this.id, from: 0 });
    return this.outcome;
  }

  /** @param {string} [reason] */
  refuse(reason = "refused") {
    this.#say({ t: this.#isAccepted ? "cancel" : "refuse", id: this.id, reason });
    this.fail(new TellwireError("closed", `the file was refused: ${reason}`));
  }

  /** The peer is back, and would go on. @internal @param {Peer} peer @param {number} number */
  resume(peer, number) {
    this.peer = peer;
    this.number = number;
    if (this.#isAccepted) this.#say({ t: "accept", id: this.id, from: this.#received });
  }

  /** @internal */
  pause() {
    this.peer = undefined;
  }

  /** @internal @param {TellwireError} error @override */
  fail(error) {
    if (!this.isOver) this.#writer?.abort(error).catch(() => {});
    super.fail(error);
  }

  /** @internal @param {any} said */
  take({ t, sha256 }) {
    if (t === "cancel") this.fail(new TellwireError("closed", "the peer cancelled it"));
    else if (t === "end" && this.#isAccepted) void this.#writing.then(() => this.#end(sha256));
  }

  /** @internal @param {number} offset @param {Uint8Array<ArrayBuffer>} bytes */
  chunk(offset, bytes) {
    // What is not what comes next is of a round that is over; the peer was told where to go on.
    if (!this.#isAccepted || this.isOver || offset !== this.#received) return;
    if (offset + bytes.length > Math.min(this.size, this.#stored + WINDOW_BYTES + READ_BYTES)) {
      this.refuse("there is more of it than was announced, or asked for");
      return;
    }
    this.#received += bytes.length;
    this.#hash.update(bytes);
    const writer = this.#writer;
    if (writer) {
      this.#writing = this.#writing.then(() => writer.write(bytes)).then(
        () => this.#keep(bytes.length),
        (error) => this.refuse(`it cannot be stored: ${asError(error).message}`.slice(0, 80)),
      ); // prettier-ignore
      return;
    }
    this.#parts.push(bytes);
    this.#partsBytes += bytes.length;
    if (this.#partsBytes >= BLOB_BYTES) this.#pack();
    this.#keep(bytes.length);
  }

  #pack() {
    this.#blobs.push(new Blob(this.#parts.splice(0)));
    this.#partsBytes = 0;
  }

  /** @param {number} bytes */
  #keep(bytes) {
    this.#stored += bytes;
    if (this.#stored - this.#told >= TELL_EVERY_BYTES) {
      this.#told = this.#stored;
      this.#say({ t: "have", id: this.id, at: this.#stored });
    }
    this.progress(this.#stored);
  }

  /** @param {unknown} sha256 */
  async #end(sha256) {
    if (this.isOver || this.#received !== this.size) return;
    if (this.#hash.hex() !== sha256) {
      this.#say({ t: "bad", id: this.id });
      this.fail(new TellwireError("corrupt", `${this.name}: its checksum is another`));
      return;
    }
    try {
      await this.#writer?.close();
    } catch (error) {
      this.refuse(`it cannot be stored: ${asError(error).message}`.slice(0, 80));
      return;
    }
    this.#say({ t: "done", id: this.id });
    this.#pack();
    this.finish(this.#writer ? undefined : new Blob(this.#blobs, { type: this.type }));
  }

  /** @param {object} what */
  #say(what) {
    tell(this.peer, what);
  }
}
