import { Backoff } from "./backoff.js";
import { TellwireError, asError } from "./errors.js";

/** Failures that say nothing of the message: the same one may be tried again with its id. */
const AGAIN = new Set(["disconnected", "timeout", "unavailable", "rate_limited", "draining", "expired"]);

/**
 * @typedef {object} Entry
 * @property {string} text The message as JSON, as it was when it was published.
 * @property {boolean} ephemeral
 * @property {boolean} inFlight
 * @property {number | undefined} sentAt When it was first sent.
 * @property {(answer: import("./wire.js").Published) => void} resolve
 * @property {(error: TellwireError) => void} reject
 *
 * @typedef {(import("./wire.js").Published | TellwireError)[]} Answers
 *
 * @typedef {object} Sender
 * @property {number} batches How many calls of `publish` may be under way.
 * @property {(texts: string[]) => Promise<Answers>} publish As many answers, in order.
 */

/** The answer to an ephemeral message that found no connection. */
const DROPPED = { position: null, duplicate: false, dropped: true };

const BATCH_MESSAGES = 64;
const BATCH_CHARS = 400_000;

/**
 * Publishes on their way: held while there is no connection, sent in order, and sent again with the same id until they
 * are acknowledged. Bounded in number and size; what does not fit any more is refused, as the earlier were promised.
 */
export class Outbox {
  /** @type {Entry[]} */
  #entries = [];
  #chars = 0;
  #batches = 0;
  /**
   * Batch by batch, until everything is through. What follows one that is refused for now must not overtake it: so the
   * server refuses that too, until it is told that all answers were heard (spec/protocol.md, section 3.8).
   */
  #isCareful = false;
  /** @type {Sender | undefined} */
  #sender;
  /** @type {unknown} */
  #timer;

  /**
   * @param {import("./clock.js").Clock} clock
   * @param {{outboxMaxMessages: number, outboxMaxChars: number, idempotencyWindowMs: number}} bounds
   */
  constructor(clock, bounds) {
    this.clock = clock;
    this.bounds = bounds;
    this.backoff = new Backoff(clock);
  }

  get size() {
    return this.#entries.length;
  }

  /**
   * @param {string} text
   * @param {boolean} ephemeral
   * @returns {Promise<import("./wire.js").Published>}
   */
  add(text, ephemeral) {
    // Who publishes where somebody types or points wants it now or never.
    if (ephemeral && !this.#sender) return Promise.resolve(DROPPED);
    const { outboxMaxMessages, outboxMaxChars } = this.bounds;
    if (this.#entries.length >= outboxMaxMessages || this.#chars + text.length > outboxMaxChars) {
      const held = `${this.#entries.length} publishes (${this.#chars} characters) wait to be acknowledged`;
      return Promise.reject(new TellwireError("outbox_full", `${held}; try again when some of them are`));
    }
    return new Promise((resolve, reject) => {
      this.#entries.push({ text, ephemeral, inFlight: false, sentAt: undefined, resolve, reject });
      this.#chars += text.length;
      this.#pump();
    });
  }

  /** There is a connection. @param {Sender} sender */
  attach(sender) {
    this.detach();
    this.#sender = sender;
    this.backoff.reset();
    this.#pump();
  }

  /** There is none any more. What was under way is sent again over the next. */
  detach() {
    this.#sender = undefined;
    this.#batches = 0;
    this.clock.clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const entry of [...this.#entries]) {
      entry.inFlight = false;
      if (entry.ephemeral) this.#remove(entry)?.resolve(DROPPED);
    }
  }

  /** The server said that something is too large for it: that can only be the largest of those under way. */
  refuseLargest() {
    const [largest] = this.#entries.filter((entry) => entry.inFlight).sort((a, b) => b.text.length - a.text.length);
    if (largest) this.#remove(largest)?.reject(new TellwireError("too_large", "larger than the server takes"));
  }

  /** @param {TellwireError} error */
  close(error) {
    this.detach();
    for (const entry of this.#entries.splice(0)) entry.reject(error);
    this.#chars = 0;
  }

  /** Send what waits, in order, as far as the sender takes it. */
  #pump() {
    while (this.#sender && this.#timer === undefined && this.#batches < (this.#isCareful ? 1 : this.#sender.batches)) {
      const batch = this.#nextBatch();
      if (!batch.length) {
        this.#isCareful &&= this.#entries.length > 0;
        return;
      }
      void this.#send(this.#sender, batch);
    }
  }

  #nextBatch() {
    const batch = [];
    let chars = 0;
    const now = this.clock.now();
    for (const entry of [...this.#entries]) {
      if (entry.inFlight) continue;
      if (entry.sentAt !== undefined && now - entry.sentAt >= this.bounds.idempotencyWindowMs) {
        const why = "sent, but not acknowledged while the server remembers ids; see in the history whether it is there";
        this.#remove(entry)?.reject(new TellwireError("uncertain", why));
        continue;
      }
      chars += entry.text.length;
      if (batch.length && (batch.length >= BATCH_MESSAGES || chars > BATCH_CHARS)) break;
      entry.inFlight = true;
      entry.sentAt ??= now;
      batch.push(entry);
    }
    return batch;
  }

  /** @param {Sender} sender @param {Entry[]} batch */
  async #send(sender, batch) {
    this.#batches += 1;
    /** @type {Answers} */
    let answers;
    try {
      const texts = batch.map(({ text }) => text);
      if (this.#isCareful) texts[0] = texts[0]?.replace("{", '{"again":true,') ?? "";
      answers = await sender.publish(texts);
    } catch (error) {
      answers = batch.map(() => asError(error));
    }
    // Another connection has it now: that one will bring the answers, unless these are good ones.
    const isCurrent = sender === this.#sender;
    if (isCurrent) this.#batches -= 1;
    /** @type {TellwireError | undefined} */
    let again;
    batch.forEach((entry, number) => {
      const answer = answers[number] ?? new TellwireError("internal", "the server's answer is not complete");
      if (!(answer instanceof TellwireError)) this.#remove(entry)?.resolve(answer);
      else if (!AGAIN.has(answer.code)) this.#remove(entry)?.reject(answer);
      else if (entry.ephemeral) this.#remove(entry)?.resolve(DROPPED);
      else if (isCurrent) {
        entry.inFlight = false;
        again ??= answer;
      }
    });
    if (!isCurrent) return;
    if (again === undefined) this.backoff.reset();
    else {
      this.#isCareful = true;
      if (!this.#batches) {
        this.#timer = this.clock.setTimeout(() => {
          this.#timer = undefined;
          this.#pump();
        }, this.backoff.next(again.retryAfterMs));
      }
    }
    this.#pump();
  }

  /** @param {Entry} entry */
  #remove(entry) {
    const index = this.#entries.indexOf(entry);
    if (index < 0) return undefined;
    this.#entries.splice(index, 1);
    this.#chars -= entry.text.length;
    return entry;
  }
}
