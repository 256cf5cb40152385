import { Backoff, pause } from "./lanes/backoff.js";
import { fields, randomText } from "./lanes/credentials.js";
import { Refused, address, check } from "./lanes/wire.js";

/** Names this page in what it publishes: only its own clock can tell a latency. */
export const PAGE = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);

/** Milliseconds since 1970 with a fraction, on a clock that does not jump. */
export function now() {
  return performance.timeOrigin + performance.now();
}

/** Tries before a publish is given up. */
const TRIES = 5;

/** @typedef {{ position: string | null, duplicate: boolean } | { error: { code: string, message: string } }} Answer */

/**
 * Publish a list in one request. Each message has an id, so that a retry after a lost answer is not appended twice.
 * @param {string} channel
 * @param {unknown[]} items
 * @returns {Promise<string[]>} The positions in the log.
 */
export async function publish(channel, items) {
  const messages = items.map((data) => ({ channel, data: stamp(data), id: randomText() }));
  const body = JSON.stringify(messages);
  const backoff = new Backoff();
  for (let tries = 1; ; tries += 1) {
    try {
      const headers = fields({ "content-type": "application/json" });
      const response = await fetch(address("v1/messages"), { method: "POST", headers, body });
      await check(response);
      /** @type {Answer[]} */
      const answers = await response.json();
      return answers.flatMap((answer) => {
        if ("error" in answer) throw new Refused(400, answer.error.message);
        return answer.position ?? [];
      });
    } catch (error) {
      const isFinal = error instanceof Refused && error.status < 500;
      if (isFinal || tries === TRIES) throw error;
      await pause(backoff.next(), new AbortController().signal);
    }
  }
}

/** Put the time of sending into what can hold it. @param {unknown} data */
function stamp(data) {
  const isObject = typeof data === "object" && data !== null && !Array.isArray(data);
  return isObject ? { ...data, sent: Math.round(now() * 1000) / 1000, page: PAGE } : data;
}

/**
 * When a message was sent, in milliseconds since 1970, if this page sent it.
 * @param {unknown} data
 */
export function sentAt(data) {
  if (typeof data !== "object" || data === null || !("sent" in data) || !("page" in data)) return undefined;
  return data.page === PAGE && typeof data.sent === "number" ? data.sent : undefined;
}

/** What a row shows of a message. @param {unknown} data */
export function describe(data) {
  if (typeof data === "object" && data !== null && "text" in data && typeof data.text === "string") return data.text;
  if (typeof data === "object" && data !== null && "sent" in data && "page" in data) {
    const { sent, page, ...rest } = data;
    return JSON.stringify(rest);
  }
  return JSON.stringify(data);
}
