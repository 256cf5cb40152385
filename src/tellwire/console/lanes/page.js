import { credentials, fields } from "./credentials.js";
import { address, check } from "./wire.js";
import { bodySize, headSize, requestSize } from "./size.js";

/**
 * @typedef {import("./wire.js").Message} Message
 * @typedef {import("./wire.js").Gap} Gap
 * @typedef {import("./wire.js").Push} Push
 * @typedef {{ messages: (Message | Push)[], cursor: string, gap: Gap | null }} Page
 */

/**
 * Ask once what came after a cursor. With `wait` the server answers as soon as there is something.
 * @param {string} channel
 * @param {string} cursor
 * @param {{ wait?: number, limit?: number, presence?: "enter" | "watch", signal?: AbortSignal }} [options]
 *   `wait` in seconds.
 * @returns {Promise<{ page: Page, exact: number, estimated: number }>} The answer, and what it weighed.
 */
export async function readPage(channel, cursor, { wait = 0, limit = 1000, presence, signal } = {}) {
  const query = { channel, since: cursor, wait: String(wait), limit: String(limit) };
  const url = address("v1/messages", presence ? { ...query, presence, session: credentials.session } : query);
  const response = await fetch(url, { headers: fields(), signal, cache: "no-store" });
  await check(response);
  const body = new Uint8Array(await response.arrayBuffer());
  return {
    page: JSON.parse(new TextDecoder().decode(body)),
    exact: bodySize(url, body.length),
    estimated: requestSize(url) + headSize(response),
  };
}

/**
 * Tell a page's messages, and in between who came and what was said to this client.
 * @param {Page} page
 * @param {import("./wire.js").LaneEvents} events
 */
export function tellPage(page, events) {
  if (page.gap) events.ongap(page.gap);
  /** @type {Message[]} */
  const messages = [];
  for (const each of page.messages) {
    if (each.type === "message") messages.push(each);
    else events.onpush(each, page.cursor);
  }
  events.onmessages(messages, page.cursor);
}
