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
   * Ask, and let `take` read a good answer: whoever reads says how much longer the next part may take.
   * @template T
   * @param {string} path
   * @param {{query?: Query, body?: string, headers?: Record<string, string>, signal?: AbortSignal | undefined,
   *   timeoutMs: number, take: (response: Response, wait: (ms: number) => void) => Promise<T>}} what
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
      /** @type {unknown} */
      let timer;
      const wait = (/** @type {number} */ ms) => {
        this.clock.clearTimeout(timer);
        timer = this.clock.setTimeout(() => {
          late = true;
          stop();
        }, ms);
      };
      wait(timeoutMs);
      try {
        const token = await this.tokens.get();
        if (token) headers["Authorization"] = `Bearer ${token}`;
        if (body !== undefined) headers["Content-Type"] ??= "application/json";
        const response = await this.fetch.call(globalThis, url, {
          ...(body === undefined ? {} : { method: "POST", body }),
          headers,
          signal: abort.signal,
          cache: "no-store",
          credentials: this.credentials,
        });
        if (!response.ok) throw await refused(response);
        return await take(response, wait);
      } catch (error) {
        if (late) throw new TellwireError("timeout", `${path}: nothing came for too long`);
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
   * Ask for JSON. A slow line may take its time, as long as something comes.
   * @param {string} path
   * @param {{query?: Query, body?: string, signal?: AbortSignal | undefined, timeoutMs: number}} what
   * @returns {Promise<any>}
   */
  json(path, what) {
    return this.ask(path, {
      ...what,
      take: async (response, wait) => {
        // What is not UTF-8 was damaged on its way.
        const decoder = new TextDecoder("utf-8", { fatal: true });
        let text = "";
        for await (const part of parts(response)) {
          wait(what.timeoutMs);
          text += decoder.decode(part, { stream: true });
        }
        return JSON.parse(text + decoder.decode());
      },
    });
  }
}

/**
 * The parts of an answer as they come. (Not every browser can iterate over a body by itself.)
 * @param {Response} response
 */
export async function* parts(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
