import { TellwireError } from "../errors.js";
import { randomId } from "../storage.js";
import { IncomingFile, OutgoingFile, tell } from "./transfer.js";

/** Files that a peer may have on their way here at a time; each may have 8 MiB in memory that are not stored yet. */
const INCOMING_MAX = 16;
/** For so long a transfer waits for a peer who has gone. */
const AWAY_MS = 60_000;
const TEXT_MAX = 255;
const DONE_MAX = 64;

/** @typedef {import("./peer.js").Peer} Peer */

/**
 * Files to and from peers. They outlive the connection, and the peer's absence for a while: whoever receives says how
 * much it has.
 */
export class Files {
  /** @type {Map<string, OutgoingFile>} */
  #outgoing = new Map();
  /** By client and id. @type {Map<string, IncomingFile>} */
  #incoming = new Map();
  /** The newest that have arrived. @type {Set<string>} */
  #done = new Set();
  #numbers = 0;

  /**
   * @param {import("../clock.js").Clock} clock
   * @param {number} maxBytes
   * @param {(file: IncomingFile) => boolean} offered Whether somebody wants to be asked.
   */
  constructor(clock, maxBytes, offered) {
    this.clock = clock;
    this.maxBytes = maxBytes;
    this.offered = offered;
  }

  /** @param {Peer} peer @param {Blob & {name?: string}} file */
  send(peer, file) {
    this.#numbers += 1;
    const ended = () => void this.#outgoing.delete(sending.id);
    const sending = new OutgoingFile(randomId(), this.#numbers, peer.client, file, ended);
    this.#outgoing.set(sending.id, sending);
    sending.offer(peer);
    return sending;
  }

  /** A peer is there, perhaps again. @param {Peer} peer */
  attach(peer) {
    for (const sending of this.#outgoing.values()) {
      if (sending.client !== peer.client) continue;
      this.clock.clearTimeout(sending.timer);
      sending.offer(peer);
    }
    for (const incoming of this.#of(peer.client)) incoming.peer = peer;
  }

  /** A peer is not there any more. @param {Peer} peer */
  detach(peer) {
    const all = [...[...this.#outgoing.values()].filter(({ client }) => client === peer.client), ...this.#of(peer.client)];
    for (const transfer of all) {
      transfer.pause();
      this.clock.clearTimeout(transfer.timer);
      const gone = () => transfer.fail(new TellwireError("disconnected", "the peer did not come back"));
      transfer.timer = this.clock.setTimeout(gone, AWAY_MS);
    }
  }

  close() {
    for (const transfer of [...this.#outgoing.values(), ...this.#incoming.values()]) {
      this.clock.clearTimeout(transfer.timer);
      transfer.fail(new TellwireError("closed", "the room was left"));
    }
  }

  /** What a peer says of files. @param {Peer} peer @param {string | Uint8Array<ArrayBuffer>} data */
  take(peer, data) {
    if (typeof data !== "string") {
      if (data.length < 12) return;
      const view = new DataView(data.buffer, data.byteOffset);
      const number = view.getUint32(0);
      for (const incoming of this.#of(peer.client)) {
        if (incoming.number === number) incoming.chunk(view.getFloat64(4), data.subarray(12));
      }
      return;
    }
    /** @type {any} */
    let said;
    try {
      said = JSON.parse(data);
    } catch {
      return;
    }
    const { t, id } = said ?? {};
    if (typeof id !== "string" || id.length > TEXT_MAX) return;
    const sending = this.#outgoing.get(id);
    if (t === "offer") this.#offered(peer, id, said);
    else if (sending?.client === peer.client) sending.take(said);
    else this.#incoming.get(`${peer.client} ${id}`)?.take(said);
  }

  /** @param {string} client */
  #of(client) {
    return [...this.#incoming.values()].filter((incoming) => incoming.client === client);
  }

  /** @param {Peer} peer @param {string} id @param {any} said */
  #offered(peer, id, { n, name, size, type }) {
    const key = `${peer.client} ${id}`;
    const known = this.#incoming.get(key);
    if (known) {
      this.clock.clearTimeout(known.timer);
      known.resume(peer, n);
      return;
    }
    // All of it was here, and whoever sent it could not be told.
    if (this.#done.has(key)) return tell(peer, { t: "done", id });
    const refuse = (/** @type {string} */ reason) => tell(peer, { t: "refuse", id, reason });
    const isSane = Number.isSafeInteger(n) && n > 0 && n < 2 ** 32 && Number.isSafeInteger(size) && size >= 0;
    if (!isSane || typeof name !== "string" || typeof type !== "string") return refuse("malformed");
    if (size > this.maxBytes) return refuse("too_large");
    if (this.#of(peer.client).length >= INCOMING_MAX) return refuse("busy");
    const plain = { id, number: n, size, name: name.slice(0, TEXT_MAX), type: type.slice(0, TEXT_MAX) };
    const incoming = new IncomingFile(peer, plain, () => {
      this.#incoming.delete(key);
      if (incoming.bytes !== incoming.size) return;
      this.#done.add(key);
      for (const oldest of this.#done) if (this.#done.size > DONE_MAX) this.#done.delete(oldest);
    });
    this.#incoming.set(key, incoming);
    if (!this.offered(incoming)) incoming.refuse("unwanted");
  }
}
