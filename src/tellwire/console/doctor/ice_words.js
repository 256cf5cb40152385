/**
 * What the browser found out about UDP and TURN, put in words. Nothing in here asks a clock or a network.
 *
 * @typedef {import("./ice.js").Ice} Ice
 *
 * @typedef {"unknown" | "good" | "tcp" | "bad"} IceCondition Not asked, as it should be, over TCP only, or not at all.
 */

/** @param {Ice} ice @param {string} kind */
function has({ kinds }, kind) {
  return kinds.some((each) => each.startsWith(kind));
}

/** Whether something outside was reached over UDP. @param {Ice} ice */
function isUdpOut(ice) {
  return has(ice, "srflx") || has(ice, "relay over udp");
}

/** @param {Ice} ice @returns {IceCondition} */
export function conditionOfIce(ice) {
  if (!ice.hasStun && !ice.hasTurn) return "unknown";
  if (ice.hasTurn && ice.relay_ms === undefined) return "bad";
  if (isUdpOut(ice) || !ice.asksUdp) return "good";
  return ice.hasTurn ? "tcp" : "bad";
}

/** What would help (see changes.js). @param {Ice} ice @returns {string[]} */
export function changesOfIce(ice) {
  const condition = conditionOfIce(ice);
  if (condition === "tcp") return ["udp"];
  if (condition !== "bad") return [];
  if (!ice.hasTurn) return ["stun"];
  if (ice.isRefused) return ["secret"];
  return [has(ice, "relay") ? "relay" : "turn"];
}

/** @param {Ice} ice @returns {string[]} */
export function wordsOfIce(ice) {
  const { hasStun, hasTurn, asksUdp, relay_ms, errors, isRefused } = ice;
  if (!hasStun && !hasTurn) {
    return ["Whether UDP gets out is not known: the server names no STUN or TURN servers, without which peers find each other in one network only."];
  }
  const words = [];
  if (isUdpOut(ice)) words.push("UDP gets out.");
  else if (!asksUdp) words.push("Whether UDP gets out is not known: the server names nothing that is asked over UDP.");
  else if (isRefused) words.push("Whether UDP gets out is not known: TURN refuses before it could be seen.");
  else if (has(ice, "relay")) words.push("UDP does not get out, or not to that server.");
  else words.push(`No ${hasTurn ? "STUN or TURN" : "STUN"} server answers: UDP may be blocked, or they may be down.`);
  if (!hasTurn) return words;
  if (relay_ms !== undefined) words.push(`TURN relays${has(ice, "relay over udp") ? "" : ", over TCP"}.`);
  else if (has(ice, "relay")) words.push("TURN gives addresses, but lets nothing through.");
  else words.push(`TURN does not work${errors.length > 0 ? `: ${errors.join("; ")}` : ""}.`);
  return words;
}
