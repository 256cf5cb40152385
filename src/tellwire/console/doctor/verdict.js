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
 * @property {string} [stranger] What the server said, where it takes this page for another site's.
 * @property {boolean} [isGone] Whether the server did not answer any more in the end.
 *
 * @typedef {"good" | "fair" | "bad"} Level
 * @typedef {{ level: Level, title: string, words: string[], changes: string[], best: string | undefined }} Verdict
 */

import { flowOf } from "./arrivals.js";
import { changesOfIce, conditionOfIce, wordsOfIce } from "./ice_words.js";
import { inSeconds, isAgeCut, silenceCut, wordsOfIdle } from "./idle_words.js";

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

/** @param {Seen | undefined} seen Of what is asked first. */
function judgeUnreached(seen) {
  if (seen?.code) return { title: "The server refuses to be read from here.", words: [`It said: ${seen.why}`] };
  const title = "The server cannot be reached from here.";
  if (seen?.status) return { title, words: [`A proxy answers in its place, with ${seen.status}.`] };
  return { title, words: seen?.why ? [`The browser says: ${seen.why}`] : [] };
}

/** @param {Seen | undefined} websocket */
function titleOfWebSocket(websocket) {
  if (websocket?.isOpen) return "WebSockets are held back on the way";
  return websocket?.code ? "The server refuses WebSockets" : "WebSockets do not get through";
}

/** @param {Findings} findings @param {string | undefined} best @returns {{ level: Level, title: string, words: string[] }} */
function judge({ poll, sse, ndjson, websocket, stranger, isGone }, best) {
  if (isGone) {
    const words = ["What was seen before that stands below. Examine again once the server is back."];
    return { level: "bad", title: "The server went away meanwhile.", words };
  }
  if (!poll?.isOpen) return { level: "bad", ...judgeUnreached(poll) };
  if (stranger) {
    const words = [`It said: ${stranger}.`, "So nothing can be published from here, and no WebSocket opens. What was seen is of reading only."];
    return { level: "bad", title: "The server takes this page for one of another site.", words };
  }
  const areStreamsGood = isGood(sse) && isGood(ndjson);
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
  const said = websocket?.code ? [`It said: ${websocket.why}`] : [];
  if (best === "sse") {
    return {
      level: "fair",
      title: `${titleOfWebSocket(websocket)}; Server-Sent Events ${websocket?.isOpen || websocket?.code ? "get through" : "do"}.`,
      words: [
        "The clients go on over SSE by themselves, and publish with requests. Nothing is lost, but each publish is a request.",
        ...said,
      ],
    };
  }
  if (best === "longpoll") {
    return {
      level: "bad",
      title: "Only polling gets through.",
      words: ["The clients go on with long polling by themselves: as fresh, but each message costs a request.", ...said],
    };
  }
  if (best === "poll") {
    return {
      level: "bad",
      title: "Only short polling gets through.",
      words: ["The clients ask every two seconds: nothing is lost, but all of it is late.", ...said],
    };
  }
  return { level: "bad", title: "Answers come late or not at all.", words: ["Not even short polling works as it should."] };
}

/** What of the way has to be changed for the transports. @param {Findings} findings @returns {string[]} */
function changesOfTransports({ sse, ndjson, websocket, stranger }) {
  if (stranger) return ["origin"];
  const changes = [];
  const isWebSocketBad = websocket && !isGood(websocket) && conditionOf(websocket) !== "refused";
  if (isWebSocketBad && !websocket.isOpen) changes.push("upgrade");
  if (isHeldBack(sse) || isHeldBack(ndjson) || (isWebSocketBad && websocket.isOpen)) changes.push("buffering");
  if ([sse, ndjson].some((seen) => seen && conditionOf(seen) === "blocked")) changes.push("streams");
  return changes;
}

/** @param {Findings} findings @returns {Verdict} */
export function verdictOf(findings) {
  const best = bestOf(findings);
  let { level, title, words } = judge(findings, best);
  const { poll, sse, websocket, webrtc, ice, idle, isGone } = findings;
  if (isGone) return { level, title, words, changes: ["reach"], best };
  if (!poll?.isOpen) {
    const changes = poll?.code === "forbidden_origin" ? ["names"] : poll?.code ? [] : ["reach"];
    return { level, title, words, changes, best };
  }
  const changes = changesOfTransports(findings);
  const slow = [poll, websocket, sse].filter((seen) => (seen?.open_ms ?? 0) > SLOW_MS);
  if (slow.length > 0) words = [...words, "It takes long to open: the way is slow, or something on it looks at everything."];
  if (webrtc) words = [...words, isGood(webrtc) ? "The server's data channel opens." : "The server's data channel does not open."];
  if (ice) words = [...words, ...wordsOfIce(ice)];
  const isIceBad = ice !== undefined && conditionOfIce(ice) === "bad";
  const isChannelBad = webrtc !== undefined && !isGood(webrtc);
  if (ice) changes.push(...changesOfIce(ice));
  if (isChannelBad) changes.push("channel");
  if (level === "good" && (isIceBad || isChannelBad)) {
    level = "fair";
    title = "Everything but WebRTC gets through.";
  } else if (level === "good" && ice && conditionOfIce(ice) === "tcp") {
    level = "fair";
    title = "Everything but UDP gets through; TURN relays over TCP.";
  }
  words = [...words, ...(idle ? wordsOfIdle(idle) : ["Whether silence is borne has not been watched."])];
  const cut_s = idle && silenceCut(idle);
  if (cut_s !== undefined) {
    changes.push("timeouts");
    title = `${title.slice(0, -1)}, but silence is cut after ${inSeconds(cut_s)}.`;
    if (level === "good") level = "fair";
  }
  if (idle && isAgeCut(idle)) changes.push("age");
  return { level, title, words, changes, best };
}
