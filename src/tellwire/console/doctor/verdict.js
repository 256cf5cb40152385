/**
 * What was seen, put in words. Nothing in here asks a clock or a network.
 *
 * @typedef {import("./probes.js").Seen} Seen
 * @typedef {import("./ice.js").Ice} Ice
 * @typedef {import("./idle.js").Idle} Idle
 *
 * @typedef {"good" | "clumped" | "held" | "blocked" | "refused"} Condition
 *
 * @typedef {object} Findings What has been looked at so far, by key.
 * @property {Seen} [poll]
 * @property {Seen} [longpoll]
 * @property {Seen} [sse]
 * @property {Seen} [ndjson]
 * @property {Seen} [websocket]
 * @property {Seen} [webrtc] Left out where the server has no data channel.
 * @property {Ice} [ice] Left out where the server has no list.
 * @property {Idle[]} [idle]
 *
 * @typedef {"good" | "fair" | "bad"} Level
 * @typedef {{ level: Level, title: string, words: string[], changes: string[], best: string | undefined }} Verdict
 */

import { flowOf } from "./arrivals.js";

/** Signs of life come this often, and clients' polls wait as long (spec/protocol.md, section 9). */
export const HEARTBEAT_S = 25;

/** A transport that takes longer to open is worth a word. */
const SLOW_MS = 1500;

/** @param {Seen} seen @returns {Condition} */
export function conditionOf(seen) {
  if (!seen.isOpen) return seen.code ? "refused" : seen.isLate ? "held" : "blocked";
  const flow = flowOf(seen.sent);
  return flow === "held" || flow === "clumped" ? flow : "good";
}

/** @param {Seen | undefined} seen */
function isGood(seen) {
  return seen !== undefined && conditionOf(seen) === "good";
}

/** @param {Seen | undefined} seen */
function isHeldBack(seen) {
  return seen !== undefined && ["held", "clumped"].includes(conditionOf(seen));
}

/** The best of what works, in the order in which clients try it. @param {Findings} findings */
function bestOf(findings) {
  const order = /** @type {const} */ (["websocket", "sse", "longpoll", "poll"]);
  return order.find((key) => isGood(findings[key]));
}

/** @param {Findings} findings @param {string | undefined} best @returns {{ level: Level, title: string, words: string[] }} */
function judge({ poll, sse, ndjson, websocket }, best) {
  const areStreamsGood = isGood(sse) && isGood(ndjson);
  if (!poll?.isOpen) {
    const title = poll?.code ? "The server refuses to be read from here." : "The server cannot be reached from here.";
    return { level: "bad", title, words: poll?.why ? [`It said: ${poll.why}`] : [] };
  }
  if (best === "websocket" && areStreamsGood) {
    return { level: "good", title: "Everything gets through.", words: ["Take whichever transport suits you."] };
  }
  if (best === "websocket") {
    const isHeld = isHeldBack(sse) || isHeldBack(ndjson);
    return {
      level: "fair",
      title: `WebSockets get through; ${isHeld ? "streams are held back on the way" : "streams do not"}.`,
      words: ["Take WebSockets, and long polling where they fail: Server-Sent Events would be late or never come."],
    };
  }
  if (best === "sse") {
    return {
      level: "fair",
      title: "WebSockets do not get through; Server-Sent Events do.",
      words: ["The clients go on over SSE by themselves, and publish with requests. Nothing is lost, but each publish is a request."],
    };
  }
  if (best === "longpoll") {
    return {
      level: "bad",
      title: "Only polling gets through.",
      words: ["The clients go on with long polling by themselves: as fresh, but each message costs a request."],
    };
  }
  if (best === "poll") {
    return {
      level: "bad",
      title: "Only short polling gets through.",
      words: ["The clients ask every two seconds: nothing is lost, but all of it is late."],
    };
  }
  return { level: "bad", title: "Answers come late or not at all.", words: ["Not even short polling works as it should."] };
}

/** @param {Ice} ice */
function wordsOfIce({ hasStun, hasTurn, kinds, relay_ms, errors }) {
  const words = [];
  const hasReflexive = kinds.some((kind) => kind.startsWith("srflx"));
  const hasRelay = kinds.some((kind) => kind.startsWith("relay"));
  if (hasStun || hasTurn) {
    if (hasReflexive || kinds.some((kind) => kind === "relay over udp")) words.push("UDP gets out.");
    else if (hasRelay) words.push("UDP does not get out, or to nowhere that answers.");
    else words.push("No STUN or TURN server answers: UDP may be blocked, or they may be down.");
  } else words.push("The server names no STUN or TURN servers: peers find each other in one network only.");
  if (hasTurn) {
    if (relay_ms !== undefined) words.push("TURN relays.");
    else if (hasRelay) words.push("TURN gives addresses, but lets nothing through.");
    else words.push(`TURN does not work${errors.length > 0 ? `: ${errors.join("; ")}` : ""}.`);
  }
  return words;
}

/** @param {Ice} ice @returns {boolean} */
export function isIceGood({ hasStun, hasTurn, kinds, relay_ms }) {
  if (hasTurn) return relay_ms !== undefined;
  return !hasStun || kinds.some((kind) => kind.startsWith("srflx"));
}

/** @param {Idle[]} idle */
function wordsOfIdle(idle) {
  const cut = idle.filter(({ cut_s }) => cut_s !== undefined);
  if (cut.length === 0) {
    const [first] = idle;
    return first ? [`Nothing cut an idle connection in ${Math.round(first.watched_s)} seconds.`] : [];
  }
  return cut.map(
    ({ name, cut_s, silent_s }) =>
      `${name} was cut after ${inSeconds(cut_s ?? 0)}, of which ${inSeconds(silent_s ?? 0)} were silent.`,
  );
}

/** @param {number} seconds */
export function inSeconds(seconds) {
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

/** @param {Findings} findings @returns {Verdict} */
export function verdictOf(findings) {
  const best = bestOf(findings);
  let { level, title, words } = judge(findings, best);
  /** @type {string[]} */
  const changes = [];
  const { poll, sse, ndjson, websocket, webrtc, ice, idle } = findings;
  if (!poll?.isOpen) return { level, title, words, changes: poll?.code ? [] : ["reach"], best };
  if (websocket && !isGood(websocket) && conditionOf(websocket) !== "refused") changes.push("upgrade");
  if (isHeldBack(sse) || isHeldBack(ndjson)) changes.push("buffering");
  const slow = [poll, websocket, sse].filter((seen) => (seen?.open_ms ?? 0) > SLOW_MS);
  if (slow.length > 0) words = [...words, "It takes long to open: the way is slow, or something on it looks at everything."];
  if (idle) {
    words = [...words, ...wordsOfIdle(idle)];
    const isCut = idle.some(({ cut_s, silent_s }) => cut_s !== undefined && (silent_s ?? 0) <= HEARTBEAT_S * 2);
    if (isCut) {
      changes.push("timeouts");
      if (level === "good") title = "Everything gets through, but silence is cut short.";
      if (level === "good") level = "fair";
    }
  }
  if (webrtc) words = [...words, isGood(webrtc) ? "The server's data channel opens." : "The server's data channel does not open."];
  if (ice) words = [...words, ...wordsOfIce(ice)];
  const isRtcBad = (ice && !isIceGood(ice)) || (webrtc && !isGood(webrtc));
  if (isRtcBad) {
    changes.push("turn");
    if (level === "good") title = "Everything but WebRTC gets through.";
    if (level === "good") level = "fair";
  }
  return { level, title, words, changes, best };
}
