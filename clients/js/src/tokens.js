import { TellwireError } from "./errors.js";

/**
 * The token, and who gives a new one: a function is asked again when the server says that the token has expired, and a
 * little before. Whatever it throws is taken for a failure to be tried again, but for a TellwireError that is final.
 * @typedef {string | (() => string | undefined | null | Promise<string | undefined | null>)} TokenSource
 */

export class Tokens {
  /** @type {Promise<string | undefined> | undefined} */
  #token;

  /** @param {TokenSource | undefined} source */
  constructor(source) {
    this.source = source;
  }

  /** Whether there is somebody to ask for another one. */
  get canRenew() {
    return typeof this.source === "function";
  }

  /** @returns {Promise<string | undefined>} */
  get() {
    if (this.#token) return this.#token;
    const { source } = this;
    const asked = (async () => (typeof source === "function" ? await source() : source) ?? undefined)();
    this.#token = asked;
    asked.catch(() => this.forget(asked));
    return asked;
  }

  /** Ask anew next time. @param {Promise<string | undefined>} [which] Only if it is still this one. */
  forget(which) {
    if (which === undefined || which === this.#token) this.#token = undefined;
  }

  /** The server does not take the token any more; raises where there is no other. */
  expire() {
    if (this.canRenew) return this.forget();
    throw new TellwireError("unauthorized", "the token has expired; give `token` as a function that gets a fresh one");
  }
}
