import { credentials, fields } from "../lanes/credentials.js";
import { Refused, address, check } from "../lanes/wire.js";

/**
 * What becomes of connections on which nothing happens but the server's signs of life.
 *
 * @typedef {object} Idle
 * @property {string} key
 * @property {string} name
 * @property {number} [cut_s] After how long it was cut; left out where it was not.
 * @property {number} [silent_s] For how long nothing had come then.
 * @property {number} [borne_s] The longest silence before that, after which something did come.
 * @property {string} [said] What the server said, where it was the server who ended it.
 * @property {number} watched_s
 */

/** The longest that the server holds a poll (spec/protocol.md, section 8.2). */
const WAIT_MAX_S = 60;

/** @type {Record<string, string>} */
export const NAMES = { websocket: "WebSocket", sse: "SSE", longpoll: "Long polling" };

/**
 * Keeps one connection open. It resolves when it is cut, with what the server said where the server ended it.
 * @typedef {(alive: () => void, end: AbortSignal) => Promise<string | undefined>} Hold
 */

/** @param {string} key @param {Hold} hold @param {AbortSignal} end @returns {Promise<Idle>} */
async function watch(key, hold, end) {
  const began = performance.now();
  let heard = began;
  let borne_ms = 0;
  const alive = () => {
    const now = performance.now();
    borne_ms = Math.max(borne_ms, now - heard);
    heard = now;
  };
  const said = await hold(alive, end).catch((error) => (error instanceof Refused && error.code ? error.message : undefined));
  const now = performance.now();
  const watched_s = (now - began) / 1000;
  if (end.aborted) return { key, name: NAMES[key], watched_s };
  const silent_s = (now - heard) / 1000;
  return { key, name: NAMES[key], watched_s, cut_s: watched_s, silent_s, borne_s: borne_ms / 1000, said };
}

/** @param {string} channel @param {() => void} alive @param {AbortSignal} end @returns {ReturnType<Hold>} */
async function holdEvents(channel, alive, end) {
  // EventSource tells nothing of the comments that are its sign of life; the body does.
  const headers = fields({ accept: "text/event-stream" });
  const response = await fetch(address("v1/events", { channel }), { headers, cache: "no-store", signal: end });
  await check(response);
  const reader = response.body?.getReader();
  while (reader && !(await reader.read()).done) alive();
  return undefined;
}

/** @param {string} channel @param {() => void} alive @param {AbortSignal} end @param {number} seconds
 *  @returns {ReturnType<Hold>} */
async function holdPoll(channel, alive, end, seconds) {
  const wait = String(Math.min(WAIT_MAX_S, Math.ceil(seconds)));
  while (!end.aborted) {
    const url = address("v1/messages", { channel, since: "now", wait });
    const response = await fetch(url, { headers: fields(), cache: "no-store", signal: end });
    await check(response); // 504: a proxy did not wait for the server
    await response.arrayBuffer();
    alive();
  }
  return undefined;
}

/** @param {string} channel @param {() => void} alive @param {AbortSignal} end @returns {ReturnType<Hold>} */
function holdWebSocket(channel, alive, end) {
  return new Promise((resolve) => {
    const url = address("v1/ws");
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, "tellwire.v1.json");
    end.addEventListener("abort", () => socket.close());
    socket.onopen = () => {
      const { token, session } = credentials;
      socket.send(JSON.stringify({ type: "connect", ref: 1, session, ...(token ? { token } : {}) }));
      socket.send(JSON.stringify({ type: "subscribe", ref: 2, channel }));
    };
    socket.onmessage = alive;
    // A proxy cuts, without a word (1006); a server says why it closes (RFC 6455, section 7.1.5).
    socket.onclose = ({ code, reason }) => resolve(code === 1006 ? undefined : reason || `closed with ${code}`);
  });
}

/**
 * Keep connections open until `seconds` are over, `end` is aborted, or all are cut.
 * @param {string} channel @param {number} seconds @param {string[]} keys Those that open here at all.
 * @param {AbortSignal} stop @param {(idle: Idle) => void} ontell Hears of each as soon as it is over.
 * @returns {Promise<Idle[]>}
 */
export async function watchIdle(channel, seconds, keys, stop, ontell) {
  const end = new AbortController();
  const finish = () => end.abort();
  stop.addEventListener("abort", finish);
  const timer = setTimeout(finish, seconds * 1000);
  /** @type {Record<string, Hold>} */
  const holds = {
    websocket: (alive, signal) => holdWebSocket(channel, alive, signal),
    sse: (alive, signal) => holdEvents(channel, alive, signal),
    longpoll: (alive, signal) => holdPoll(channel, alive, signal, seconds),
  };
  try {
    return await Promise.all(
      keys.map(async (key) => {
        const idle = await watch(key, holds[key], end.signal);
        ontell(idle);
        return idle;
      }),
    );
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", finish);
  }
}
