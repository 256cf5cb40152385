/** Least milliseconds between two things that are told of oneself. */
const EVERY_MS = 1000;

/** Milliseconds without a key, after which nobody is typing any more. */
const IDLE_MS = 3000;

/** Milliseconds after which others believe it no longer, where nothing new is said. */
export const BELIEVED_MS = 8000;

/** Milliseconds after which it is said again, for those who would else not believe it any more. */
const AGAIN_MS = 4000;

/** What the others see of this client: a name, and whether it is typing. Told at most once a second. */
export class OwnState {
  #isTyping = false;
  #beat = 0;
  #typedAt = -Infinity;
  #toldAt = -Infinity;
  #told = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #idle;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @type {string} */
  #name;
  /** @type {() => void} */
  #tell;

  /** @param {string} name @param {() => void} tell Sends `value`. */
  constructor(name, tell) {
    this.#name = name;
    this.#tell = tell;
  }

  /** What to tell, now. */
  get value() {
    const name = this.#name ? { name: this.#name } : {};
    return this.#isTyping ? { ...name, typing: true, beat: this.#beat } : name;
  }

  /** @param {string} name */
  set name(name) {
    this.#name = name;
    this.#soon();
  }

  /** A key was pressed. */
  typing() {
    const now = performance.now();
    if (!this.#isTyping || now - this.#typedAt > AGAIN_MS) {
      this.#isTyping = true;
      this.#beat += 1;
      this.#typedAt = now;
      this.#soon();
    }
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.rest(), IDLE_MS);
  }

  /** Nothing is being typed any more. */
  rest() {
    clearTimeout(this.#idle);
    if (!this.#isTyping) return;
    this.#isTyping = false;
    this.#soon();
  }

  /** Another channel, where nobody knows it yet; a connection that enters tells it by itself, and comes first. */
  again() {
    this.#told = "{}";
    this.#soon(2 * EVERY_MS);
  }

  #soon(least_ms = 0) {
    if (this.#timer !== undefined) return;
    const wait_ms = Math.max(least_ms, this.#toldAt + EVERY_MS - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const text = JSON.stringify(this.value);
      if (text === this.#told) return;
      this.#told = text;
      this.#toldAt = performance.now();
      this.#tell();
    }, wait_ms);
  }
}
