import { TellwireError } from "./errors.js";

const POSITION = /^([A-Za-z0-9]{1,32})\.(0|[1-9][0-9]{0,18})$/;
const SEQ_MAX = 2n ** 63n - 1n;
const CURSOR_MAX_BYTES = 512;

/**
 * @param {string} text `epoch.seq` (spec/protocol.md, section 2.1)
 * @returns {{epoch: string, seq: bigint}}
 */
export function parsePosition(text) {
  const [, epoch, digits] = POSITION.exec(text) ?? [];
  const seq = BigInt(digits ?? -1);
  if (epoch === undefined || seq > SEQ_MAX || text.endsWith("\n")) {
    throw new TellwireError("invalid_cursor", `${JSON.stringify(text.slice(0, 80))} is not a position like k3f9q2ab.7`);
  }
  return { epoch, seq };
}

/** @param {string} text Positions joined by commas. */
export function parseCursor(text) {
  if (text.length > CURSOR_MAX_BYTES) throw new TellwireError("invalid_cursor", "a cursor has at most 512 bytes");
  return text.split(",").map(parsePosition);
}

/**
 * Check where a reading is to begin (section 2.3) before the server is asked.
 * @param {string | number | null | undefined} since
 */
export function checkSince(since) {
  if (since === undefined || since === null || since === "now" || since === "earliest") return;
  if (typeof since === "number" ? Number.isSafeInteger(since) && since >= 0 : isSeq(since)) return;
  if (typeof since === "number") throw new TellwireError("invalid_cursor", `since: ${since} is not a seq`);
  parseCursor(since);
}

/** @param {string} text */
const isSeq = (text) => /^(0|[1-9][0-9]{0,18})$/.test(text) && BigInt(text) <= SEQ_MAX;

/** @param {string} cursor @returns {[epoch: string, seq: number] | undefined} Undefined where it has several shards. */
export function split(cursor) {
  const dot = cursor.lastIndexOf(".");
  return cursor.includes(",") ? undefined : [cursor.slice(0, dot), Number(cursor.slice(dot + 1))];
}

/**
 * The place of one reader of one channel: what it has had, and where it goes on.
 *
 * Several connections may feed it at once, while one takes over from another; each of them is without a hole from a
 * place that the reader had reached, so that whatever is not beyond `#floor` has been had.
 */
export class Place {
  /** To go on from, over whatever transport; null before a server told. @type {string | null} */
  cursor = null;
  #epoch = "";
  #floor = 0;
  /** Up to here a gap was told. */
  #told = 0;

  /** Everything up to `cursor` was had. @param {string} cursor */
  at(cursor) {
    const [epoch, seq] = split(cursor) ?? [];
    if (epoch === undefined || seq === undefined) this.cursor = cursor;
    // Another epoch is for a gap to tell; here it is an old connection's last word.
    else if (this.#epoch === "" || epoch === this.#epoch) {
      this.#epoch = epoch;
      if (this.cursor === null || seq > this.#seq()) this.cursor = cursor;
      this.#floor = Math.max(this.#floor, seq);
    }
  }

  #seq() {
    return split(this.cursor ?? "")?.[1] ?? -1;
  }

  /** Whether a message is news; then it is had from now on. @param {string} epoch @param {number} seq */
  take(epoch, seq) {
    if (this.#epoch === "") this.#epoch = epoch;
    if (epoch !== this.#epoch || seq <= this.#floor) return false;
    this.#floor = seq;
    if (!this.cursor?.includes(",") && seq > this.#seq()) this.cursor = `${epoch}.${seq}`;
    return true;
  }

  /** Whether a gap is news for this reader (section 5). @param {import("./wire.js").Gap} gap */
  gap(gap) {
    const [toEpoch = "", toSeq = 0] = split(gap.to) ?? [];
    const [fromEpoch] = split(gap.from) ?? [];
    if (gap.reason === "epoch") {
      // A second connection tells of the same loss.
      if (toEpoch === this.#epoch && fromEpoch !== toEpoch) return false;
      this.cursor = gap.to;
      this.#epoch = toEpoch;
      // Messages before `to` may still come, where another channel's history is shorter.
      this.#floor = this.#told = 0;
      return true;
    }
    // A request for many channels asks from the place of the one that is furthest behind.
    if (toEpoch === this.#epoch && (toSeq <= this.#floor || toSeq <= this.#told)) return false;
    this.#told = toSeq;
    return true;
  }
}

/**
 * Where one request for many places has to begin: the lowest; undefined where that cannot be told.
 * @param {(string | null)[]} cursors
 */
export function lowest(cursors) {
  /** @type {ReturnType<typeof parseCursor> | undefined} */
  let low;
  for (const cursor of new Set(cursors)) {
    const parts = cursor === null ? [] : parseCursor(cursor);
    low ??= parts;
    if (parts.length === 0 || parts.length !== low.length) return undefined;
    if (parts.some(({ epoch }, shard) => epoch !== low?.[shard]?.epoch)) return undefined;
    low = low.map((part, shard) => (part.seq < (parts[shard]?.seq ?? 0n) ? part : parts[shard] ?? part));
  }
  return low?.map(({ epoch, seq }) => `${epoch}.${seq}`).join();
}
