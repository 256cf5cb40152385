/**
 * The books: which messages there are, which lane has had which, and so what each lane lost or got twice.
 *
 * That a message exists is known from any lane that had it, and from the server's acknowledgement of what this page
 * published. A lane's cursor is its claim to have everything up to there; a known message at or below it that the lane
 * never got is lost, unless a gap said so. Known messages above its cursor are on their way.
 */

/** @typedef {import("./lanes/wire.js").Gap} Gap */

/**
 * @typedef {object} Verdict
 * @property {number} received Messages in strictly increasing order.
 * @property {number} lost Missing though the cursor is past them.
 * @property {number} twice
 * @property {number} disordered Came after a newer one.
 * @property {number} told Missing, and a gap said so.
 * @property {number} pending Known to exist, still to come.
 */

/** Known messages that are kept, before the oldest of those that every lane is past are struck off. */
const KEPT = 100_000;

/** @param {string} position @returns {[epoch: string, seq: number]} */
export function parsePosition(position) {
  const dot = position.lastIndexOf(".");
  return [position.slice(0, dot), Number(position.slice(dot + 1))];
}

/** The books of one epoch, in which every message has its own number. */
class Book {
  /** @type {Map<number, number>} seq to the lanes that had it, one bit each */
  masks = new Map();
  /** @type {number[]} the same seqs, ascending */
  known = [];

  /** @param {number} lanes @param {number} floor What is at or below it was before our time. */
  constructor(lanes, floor) {
    this.floor = floor;
    this.lanes = Array.from({ length: lanes }, () => ({
      cursor: floor,
      newest: floor,
      /** @type {[after: number, upTo: number][]} */
      gaps: [],
      verdict: { received: 0, lost: 0, twice: 0, disordered: 0, told: 0, pending: 0 },
    }));
  }

  /** A message exists. @param {number} seq */
  note(seq) {
    if (seq <= this.floor || this.masks.has(seq)) return;
    this.masks.set(seq, 0);
    this.known.splice(this.#after(seq), 0, seq);
    for (const lane of this.lanes) this.#count(lane, seq, 1);
    if (this.known.length > KEPT) this.#strike();
  }

  /** @param {number} index @param {number} seq */
  receive(index, seq) {
    const lane = this.lanes[index];
    const bit = 1 << index;
    this.note(seq);
    const mask = this.masks.get(seq);
    if (mask === undefined || mask & bit) {
      lane.verdict.twice += 1;
      return;
    }
    this.#count(lane, seq, -1);
    this.masks.set(seq, mask | bit);
    if (seq > lane.newest) {
      lane.newest = seq;
      lane.verdict.received += 1;
    } else lane.verdict.disordered += 1;
  }

  /** A lane claims to have everything up to here. @param {number} index @param {number} seq */
  reach(index, seq) {
    const lane = this.lanes[index];
    if (seq <= lane.cursor) return;
    const missed = [];
    for (let at = this.#after(lane.cursor); at < this.known.length && this.known[at] <= seq; at += 1) {
      if (!(/** @type {number} */ (this.masks.get(this.known[at])) & (1 << index))) missed.push(this.known[at]);
    }
    for (const one of missed) this.#count(lane, one, -1);
    lane.cursor = seq;
    for (const one of missed) this.#count(lane, one, 1);
  }

  /** @param {number} index @param {number} after @param {number} upTo */
  excuse(index, after, upTo) {
    const lane = this.lanes[index];
    lane.gaps.push([after, upTo]);
    this.reach(index, upTo);
  }

  /**
   * Count a message that a lane has not had.
   * @param {Book["lanes"][number]} lane @param {number} seq @param {1 | -1} by
   */
  #count(lane, seq, by) {
    if (seq > lane.cursor) lane.verdict.pending += by;
    else if (lane.gaps.some(([after, upTo]) => after < seq && seq <= upTo)) lane.verdict.told += by;
    else lane.verdict.lost += by;
  }

  /** Where in `known` the first seq after this one is. @param {number} seq */
  #after(seq) {
    let low = 0;
    let high = this.known.length;
    if (high === 0 || this.known[high - 1] <= seq) return high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.known[middle] <= seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #strike() {
    const floor = Math.min(this.known[KEPT >> 1], ...this.lanes.map((lane) => lane.cursor));
    for (const seq of this.known.splice(0, this.#after(floor))) this.masks.delete(seq);
    this.floor = Math.max(this.floor, floor);
  }
}

export class Ledger {
  /** @type {Map<string, Book>} one for each epoch that was seen; the newest is the last */
  #books = new Map();
  #lanes;

  /** @param {number} lanes How many there are. @param {string} cursor Where all of them begin. */
  constructor(lanes, cursor) {
    this.#lanes = lanes;
    const [epoch, seq] = parsePosition(cursor);
    this.#book(epoch, seq);
  }

  /** @param {string} epoch */
  #book(epoch, floor = 0) {
    let book = this.#books.get(epoch);
    if (!book) this.#books.set(epoch, (book = new Book(this.#lanes, floor)));
    return book;
  }

  /** The server acknowledged a publish. @param {string} position */
  published(position) {
    const [epoch, seq] = parsePosition(position);
    this.#book(epoch).note(seq);
  }

  /** A lane had a message. @param {number} lane @param {string} epoch @param {number} seq */
  received(lane, epoch, seq) {
    this.#book(epoch).receive(lane, seq);
  }

  /** A lane's cursor. @param {number} lane @param {string} cursor */
  reached(lane, cursor) {
    const [epoch, seq] = parsePosition(cursor);
    this.#book(epoch).reach(lane, seq);
  }

  /** A lane was told that messages may be missing. @param {number} lane @param {Gap} gap */
  gap(lane, gap) {
    const [epoch, after] = parsePosition(gap.from);
    const [newEpoch, upTo] = parsePosition(gap.to);
    if (epoch === newEpoch && after <= upTo) {
      this.#book(epoch).excuse(lane, after, upTo);
      return;
    }
    // Another log: of the old one nothing more comes, and in the new one it begins after `to`.
    this.#book(epoch).excuse(lane, after, Number.MAX_SAFE_INTEGER);
    this.#book(newEpoch).excuse(lane, 0, upTo);
  }

  /** @param {number} lane @returns {Verdict} */
  verdict(lane) {
    const sum = { received: 0, lost: 0, twice: 0, disordered: 0, told: 0, pending: 0 };
    for (const book of this.#books.values()) {
      for (const key of /** @type {(keyof Verdict)[]} */ (Object.keys(sum))) sum[key] += book.lanes[lane].verdict[key];
    }
    return sum;
  }

  /**
   * How the newest messages stand with a lane, oldest first.
   * @param {number} lane @param {number} count
   * @returns {("had" | "pending" | "missing")[]}
   */
  newest(lane, count) {
    const book = /** @type {Book} */ ([...this.#books.values()].at(-1));
    return book.known.slice(-count).map((seq) => {
      if (/** @type {number} */ (book.masks.get(seq)) & (1 << lane)) return "had";
      return seq > book.lanes[lane].cursor ? "pending" : "missing";
    });
  }
}
