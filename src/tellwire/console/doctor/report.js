/**
 * The report, to be copied into a mail: what was seen, without secrets. There is no token in it, no address of this
 * machine, no channel, and of the server's address neither path nor query.
 */

import { lags, median } from "./arrivals.js";
import { CHANGES, settingsFor } from "./changes.js";
import { describeIdle } from "./idle_words.js";
import { conditionOf, verdictOf } from "./verdict.js";

/** @typedef {import("./verdict.js").Findings} Findings */

/**
 * @typedef {{ when: Date, server: string, version: string, protocol: string, proxy: string, browser: string }} Circumstances
 *   `proxy` is what answers call themselves.
 */

/** @param {number | undefined} value */
export function milliseconds(value) {
  if (value === undefined) return "–";
  return value < 10 ? `${value.toFixed(1)} ms` : value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** @type {[keyof Findings & ("poll" | "longpoll" | "sse" | "ndjson" | "websocket" | "webrtc"), string][]} */
export const TRANSPORTS = [
  ["poll", "Short polling"],
  ["longpoll", "Long polling"],
  ["sse", "Server-Sent Events"],
  ["ndjson", "NDJSON stream"],
  ["websocket", "WebSocket"],
  ["webrtc", "WebRTC data channel"],
];

/** @type {Record<import("./verdict.js").Condition, string>} */
const CONDITIONS = {
  good: "gets through",
  clumped: "gets through in lumps: held back on the way",
  held: "held back on the way",
  blocked: "does not get through",
  refused: "refused by the server",
};

/** @param {import("./probes.js").Seen} seen */
export function describeSeen(seen) {
  const condition = conditionOf(seen);
  if (!seen.isOpen) return `${CONDITIONS[condition]}: ${seen.why}`;
  const failed = seen.unpublished ? `; publishing failed: ${seen.unpublished}` : "";
  if (seen.sent.length === 0) {
    return `whether messages are held back is not known${failed || ", as none may be published"}`;
  }
  const came = lags(seen.sent);
  const behind = median(came) ?? 0;
  const last = came.length === 0 ? "" : behind < 1 ? ", at once" : `, ${milliseconds(behind)} behind`;
  return `${CONDITIONS[condition]}; ${came.length} of ${seen.sent.length} messages came${last}${failed}`;
}

/** @param {import("./ice.js").Ice} ice */
export function describeIce({ hasStun, hasTurn, kinds, relay_ms, errors }) {
  if (!hasStun && !hasTurn) return "not looked at: the server names no STUN or TURN servers";
  const found = kinds.length > 0 ? `candidates: ${kinds.join(", ")}` : "no candidates";
  const relay = relay_ms === undefined ? "" : `; two connections through the relay in ${milliseconds(relay_ms)}`;
  return `${found}${relay}${errors.length > 0 ? `; ${errors.join("; ")}` : ""}`;
}

/** @param {Findings} findings @param {Circumstances} circumstances */
export function reportOf(findings, { when, server, version, protocol, proxy, browser }) {
  const verdict = verdictOf(findings);
  const lines = [
    "Tellwire doctor",
    "",
    `when      ${when.toISOString()}`,
    `server    ${server}, Tellwire ${version}${protocol ? `, over ${protocol}` : ""}`,
    ...(proxy ? [`proxy     ${proxy}, as its answers say`] : []),
    `browser   ${browser}`,
    "",
    `verdict   ${verdict.title}`,
    ...verdict.words.map((text) => `          ${text}`),
    "",
  ];
  for (const [key, name] of TRANSPORTS) {
    const seen = findings[key];
    if (!seen) continue;
    lines.push(`${name.padEnd(21)}${seen.isOpen ? `open in ${milliseconds(seen.open_ms)}; ` : ""}${describeSeen(seen)}`);
    if (seen.sent.length > 0) lines.push(`${"".padEnd(21)}behind: ${lags(seen.sent).map(milliseconds).join(", ") || "none came"}`);
  }
  if (findings.ice) lines.push(`${"UDP and TURN".padEnd(21)}${describeIce(findings.ice)}`);
  for (const idle of findings.idle ?? []) lines.push(`${`idle ${idle.name}`.padEnd(21)}${describeIdle(idle)}`);
  for (const key of verdict.changes) {
    const { title, why } = CHANGES[key];
    lines.push("", `To be changed: ${title}`, why);
    for (const { about, code } of settingsFor(CHANGES[key], proxy)) lines.push(`  ${about}:`, ...code.split("\n").map((line) => `    ${line}`));
  }
  return `${lines.join("\n")}\n`;
}
