/**
 * What became of idle connections, put in words. Nothing in here asks a clock or a network.
 *
 * @typedef {import("./idle.js").Idle} Idle
 */

/** Signs of life come this often, and clients' polls wait as long (spec/protocol.md, section 9). */
export const HEARTBEAT_S = 25;

/** What is cut later than this does not matter to the clients: their silences are never as long. */
const ENOUGH_S = HEARTBEAT_S * 2;

/** By how much two silences have to differ, in seconds, before one is called the longer. */
const CLEARLY_S = 1;

/** @param {number} seconds */
export function inSeconds(seconds) {
  const rounded = seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds);
  return rounded === 1 ? "1 second" : `${rounded} seconds`;
}

/** A server that ends, or is restarted, lets its connections go over this many seconds, and one of them hears why. */
const LEAVING_S = 10;

/**
 * Why it ended: where a longer silence was borne before, or there was none to speak of, it was not silence that was cut.
 * @param {Idle} idle @returns {"kept" | "server" | "age" | "silence"}
 */
export function endOf({ cut_s, silent_s = 0, borne_s = 0, said }) {
  if (cut_s === undefined) return "kept";
  if (said !== undefined) return "server";
  return silent_s < CLEARLY_S || borne_s > silent_s + CLEARLY_S ? "age" : "silence";
}

/** What the server said to one it said to those that were not told, and ended at about the same time. @param {Idle[]} idle */
export function shared(idle) {
  const told = idle.find(({ said }) => said !== undefined);
  if (!told) return idle;
  const isSame = (/** @type {Idle} */ { cut_s }) => cut_s !== undefined && Math.abs(cut_s - (told.cut_s ?? 0)) < LEAVING_S;
  return idle.map((each) => (isSame(each) ? { ...each, said: each.said ?? told.said } : each));
}

/** How it looks in the list. @param {Idle} idle @returns {"good" | "fair" | "bad"} */
export function stateOfIdle(idle) {
  const end = endOf(idle);
  if (end === "kept") return "good";
  return end === "silence" && (idle.silent_s ?? 0) <= ENOUGH_S ? "bad" : "fair";
}

/** @param {Idle} idle */
export function describeIdle(idle) {
  const { watched_s, cut_s = 0, silent_s = 0, said } = idle;
  switch (endOf(idle)) {
    case "kept":
      return `not cut in ${inSeconds(watched_s)}`;
    case "server":
      return `ended by the server after ${inSeconds(cut_s)}: ${said}`;
    case "age":
      return `cut after ${inSeconds(cut_s)}, and not for its silence`;
    default:
      return `cut after ${inSeconds(silent_s)} of silence${silent_s > ENOUGH_S ? ", longer than the clients are ever silent" : ""}`;
  }
}

/** The shortest silence that was cut, in seconds; undefined where clients need not mind. @param {Idle[]} idle */
export function silenceCut(idle) {
  const cuts = idle.filter((each) => stateOfIdle(each) === "bad").map(({ silent_s = 0 }) => silent_s);
  return cuts.length > 0 ? Math.min(...cuts) : undefined;
}

/** Whether something ends connections by their age. @param {Idle[]} idle */
export function isAgeCut(idle) {
  return idle.some((each) => endOf(each) === "age");
}

/** @param {Idle[]} idle */
export function wordsOfIdle(idle) {
  if (idle.every((each) => endOf(each) === "kept")) {
    const watched_s = Math.max(...idle.map((each) => each.watched_s));
    const doubt = watched_s < HEARTBEAT_S * 2 ? ` Watch for ${HEARTBEAT_S * 3} to be sure.` : "";
    return idle.length > 0 ? [`Nothing cut an idle connection in ${inSeconds(watched_s)}.${doubt}`] : [];
  }
  return idle.map((each) => `${each.name} was ${describeIdle(each)}.`);
}
