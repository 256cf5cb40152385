/** Something may come back by itself for so long. */
const DOUBT_MS = 5000;
const FIRST_MS = 1000;
const LONGEST_MS = 30_000;
/** One of the two waits, so that they do not restart at the same moment. */
const AFTER_YOU_MS = 2000;
/** Restarts in a row after which there is to be a new connection altogether. */
const RESTARTS = 3;

/**
 * When to try what on a connection that does not come up or has broken: ICE restarts, further and further apart, as the
 * relay may be unusable for long; then a new connection; and, at the deadline, the way through the server.
 */
export class Recovery {
  #failures = 0;
  /** @type {unknown} */
  #deadline;
  /** @type {unknown} */
  #next;
  /** @type {unknown} */
  #doubt;
  #isClosed = false;
  #isLost = false;

  /**
   * @param {import("../clock.js").Clock} clock
   * @param {{deadlineMs: number, isFirst: boolean, late: () => void, restart: () => void, rebuild: () => void}} what
   */
  constructor(clock, what) {
    this.clock = clock;
    this.what = what;
  }

  /** A connection is being made. */
  begin() {
    this.#stop("doubt");
    this.#await();
  }

  /** Nothing was heard for a moment. */
  doubted() {
    this.#await();
    this.#doubt ??= this.clock.setTimeout(() => {
      this.#doubt = undefined;
      this.broken();
    }, DOUBT_MS);
  }

  /** It is closed: no restart brings it back. */
  lost() {
    this.#stop("next");
    this.#isLost = true;
    this.broken();
  }

  /** It is known not to work. */
  broken() {
    if (this.#isClosed || this.#next !== undefined) return;
    this.#stop("doubt");
    this.#await();
    const { what } = this;
    const backoff = this.#failures === 0 ? 0 : Math.min(FIRST_MS * 2 ** (this.#failures - 1), LONGEST_MS);
    this.#next = this.clock.setTimeout(
      () => {
        this.#failures += 1;
        const again = () => {
          this.#next = undefined;
          this.broken();
        };
        // Until it works: a restart that leads nowhere is not told of.
        this.#next = this.clock.setTimeout(again, Math.min(DOUBT_MS * this.#failures, LONGEST_MS));
        const isBeyondRepair = this.#isLost || this.#failures % (RESTARTS + 1) === 0;
        this.#isLost = false;
        if (isBeyondRepair) what.rebuild();
        else what.restart();
      },
      backoff + (what.isFirst ? 0 : AFTER_YOU_MS) + 500 * this.clock.random(),
    );
  }

  /** It works. */
  recovered() {
    this.#failures = 0;
    this.#isLost = false;
    this.#stop("doubt", "next", "deadline");
  }

  close() {
    this.#isClosed = true;
    this.#stop("doubt", "next", "deadline");
  }

  #await() {
    if (this.#isClosed) return;
    const late = () => {
      this.what.late();
      this.broken(); // where the other has never answered nothing else tells
    };
    this.#deadline ??= this.clock.setTimeout(late, this.what.deadlineMs);
  }

  /** @param {("doubt" | "next" | "deadline")[]} names */
  #stop(...names) {
    for (const name of names) {
      if (name === "doubt") {
        this.clock.clearTimeout(this.#doubt);
        this.#doubt = undefined;
      } else if (name === "next") {
        this.clock.clearTimeout(this.#next);
        this.#next = undefined;
      } else {
        this.clock.clearTimeout(this.#deadline);
        this.#deadline = undefined;
      }
    }
  }
}
