import { address, check } from "./wire.js";
import { bodySize, headSize, requestSize } from "./size.js";

/**
 * @typedef {import("./wire.js").Message} Message
 * @typedef {import("./wire.js").Gap} Gap
 * @typedef {{ messages: Message[], cursor: string, gap: Gap | null }} Page
 */

/**
 * Ask once what came after a cursor. With `wait` the server answers as soon as there is something.
 * @param {string} channel
 * @param {string} cursor
 * @param {{ wait?: number, limit?: number, signal?: AbortSignal }} [options] `wait` in seconds.
 * @returns {Promise<{ page: Page, exact: number, estimated: number }>} The answer, and what it weighed.
 */
export async function readPage(channel, cursor, { wait = 0, limit = 1000, signal } = {}) {
  const url = address("v1/messages", { channel, since: cursor, wait: String(wait), limit: String(limit) });
  const response = await fetch(url, { signal, cache: "no-store" });
  await check(response);
  const body = new Uint8Array(await response.arrayBuffer());
  return {
    page: JSON.parse(new TextDecoder().decode(body)),
    exact: bodySize(url, body.length),
    estimated: requestSize(url) + headSize(response),
  };
}
