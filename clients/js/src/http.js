import { TellwireError, asError, refused } from "./errors.js";

/** @typedef {Iterable<[string, string | number | undefined | null]>} Query Values that are undefined are left out. */
/** @typedef {(url: URL, init: RequestInit) => Promise<Response>} Fetch */

/** Requests to one server: the token, a deadline, and errors that say what happened. */
export class Http {
  /**
   * @param {string | URL} url
   * @param {import("./tokens.js").Tokens} tokens
   * @param {import("./clock.js").Clock} clock
   * @param {Fetch} fetch
   * @param {RequestCredentials} credentials
   */
  constructor(url, tokens, clock, fetch, credentials) {
    // Relative addresses are the page's, as everywhere in a browser.
    this.base = new URL(url, globalThis.location?.href);
    this.base.protocol = this.base.protocol.replace("ws", "http");
    if (!this.base.pathname.endsWith("/")) this.base.pathname += "/";
    this.tokens = tokens;
    this.clock = clock;
    this.fetch = fetch;
    this.credentials = credentials;
  }

  /**
   * Ask, and resolve as soon as the head of a good answer is there. `live` is called with the answer before the deadline
   * is over, and takes what has to come within it.
   * @template T
   * @param {string} path
   * @param {{query?: Query, body?: string, headers?: Record<string, string>, signal?: AbortSignal | undefined,
   *   timeoutMs: number, take: (response: Response, arrived: () => void) => Promise<T>}} what
   * @returns {Promise<T>}
   */
  async ask(path, { query = [], body, headers = {}, signal, timeoutMs, take }) {
    for (let again = true; ; again = false) {
      const url = new URL(path, this.base);
      for (const [name, value] of query) {
        if (value !== undefined && value !== null) url.searchParams.append(name, String(value));
      }
      const abort = new AbortController();
      const stop = () => abort.abort();
      if (signal?.aborted) stop();
      signal?.addEventListener("abort", stop);
      let late = false;
      const timer = this.clock.setTimeout(() => {
        late = true;
        stop();
      }, timeoutMs);
      try {
        const token = await this.tokens.get();
        if (token) headers["Authorization"] = `Bearer ${token}`;
        if (body !== undefined) headers["Content-Type"] = "application/json";
        const response = await this.fetch.call(globalThis, url, {
          ...(body === undefined ? {} : { method: "POST", body }),
          headers,
          signal: abort.signal,
          cache: "no-store",
          credentials: this.credentials,
        });
        if (!response.ok) throw await refused(response);
        return await take(response, () => this.clock.clearTimeout(timer));
      } catch (error) {
        if (late) throw new TellwireError("timeout", `${path}: no answer within ${timeoutMs} ms`);
        const { status, code } = asError(error);
        if (!again || status !== 401 || code !== "expired") throw asError(error);
        this.tokens.expire();
      } finally {
        this.clock.clearTimeout(timer);
        signal?.removeEventListener("abort", stop);
        stop();
      }
    }
  }

  /**
   * Ask for JSON.
   * @param {string} path
   * @param {{query?: Query, body?: string, signal?: AbortSignal | undefined, timeoutMs: number}} what
   * @returns {Promise<any>}
   */
  json(path, what) {
    return this.ask(path, { ...what, take: (response) => response.json() });
  }
}
