/** The page /doctor: what gets through from this browser, over this network, and what to change where it does not. */

import { copies, listing } from "../copying.js";
import { element, get, reason, say } from "../elements.js";
import { Refused, ask, order } from "../lanes/wire.js";
import { SignIn, wantsToken } from "../signin.js";
import { CHANGES } from "./changes.js";
import { Row } from "./checklist.js";
import { examineIce, iceServers } from "./ice.js";
import { NAMES, watchIdle } from "./idle.js";
import {
  probeDataChannel,
  probeEvents,
  probeLines,
  probeLongPolling,
  probePolling,
  probeWebSocket,
  read,
} from "./probes.js";
import { TRANSPORTS, describeIce, describeSeen, milliseconds, reportOf } from "./report.js";
import { conditionOf, inSeconds, isIceGood, verdictOf } from "./verdict.js";

/** @typedef {import("./verdict.js").Findings} Findings */

/** @type {Record<string, (run: import("./probes.js").Run) => Promise<import("./probes.js").Seen>>} */
const PROBES = {
  poll: probePolling,
  longpoll: probeLongPolling,
  sse: probeEvents,
  ndjson: probeLines,
  websocket: probeWebSocket,
  webrtc: probeDataChannel,
};

/** @type {Findings} */
let findings = {};
/** @type {Omit<import("./report.js").Circumstances, "when">} */
let here = { server: location.origin, version: "?", protocol: "", browser: navigator.userAgent };
let examined = new Date();
let isRunning = false;

/** What was seen makes this much of a row. @param {import("./probes.js").Seen} seen */
function stateOf(seen) {
  const condition = conditionOf(seen);
  return condition === "good" ? "good" : condition === "clumped" ? "fair" : "bad";
}

/** The version of the server, and the protocol that its answers come over. */
async function lookAtServer() {
  const { version } = await ask("healthz");
  const entry = performance.getEntriesByName(new URL("healthz", document.baseURI).href, "resource").at(-1);
  const protocol = /** @type {PerformanceResourceTiming | undefined} */ (entry)?.nextHopProtocol ?? "";
  here = { ...here, version, protocol };
}

/** What the server has that not every one has: it describes itself. */
async function offered() {
  const { paths } = await ask("openapi.json").catch(() => ({ paths: {} }));
  const canRtc = typeof RTCPeerConnection === "function"; // some companies' browsers have it switched off
  return { webrtc: canRtc && "/v1/rtc" in paths, ice: canRtc && "/v1/ice-servers" in paths };
}

/** Whether the doctor may publish here; where it may not, streams are opened all the same. @param {string} channel */
async function mayPublish(channel) {
  try {
    await order("v1/messages", { channel, data: { doctor: "begins" } });
    return true;
  } catch (error) {
    if (error instanceof Refused && error.code === "forbidden") return false;
    throw error;
  }
}

async function examine() {
  const channel = get("channel").value.trim();
  say(get("complaint"), "");
  const { cursor } = await read(channel, "now"); // refused, it says so in the complaint, or asks for a token
  signIn.done();
  await lookAtServer().catch(() => {}); // it is for the report only
  const run = { channel, cursor, mayPublish: await mayPublish(channel) };
  findings = {};
  examined = new Date();
  get("checks").replaceChildren();
  get("idle-checks").replaceChildren();
  get("seen").hidden = false;
  for (const id of ["silence", "to-change", "report-panel"]) get(id).hidden = true;
  get("verdict-panel").dataset.level = "none";
  say(get("verdict-title"), "Looking …");
  get("verdict-words").replaceChildren();
  const has = await offered();
  const servers = has.ice ? await iceServers() : undefined;
  const present = TRANSPORTS.filter(([key]) => key !== "webrtc" || has.webrtc);
  const rows = new Map(present.map(([key, name]) => [key, new Row(get("checks"), key, name)]));
  const iceRow = servers && new Row(get("checks"), "ice", "UDP and TURN");
  const progress = get("progress");
  progress.hidden = false;
  progress.max = rows.size + (iceRow ? 1 : 0);
  progress.value = 0;
  for (const [key, row] of rows) {
    row.show("running", "opening");
    const seen = await PROBES[key](run);
    findings = { ...findings, [key]: seen };
    row.show(stateOf(seen), describeSeen(seen), seen.isOpen ? milliseconds(seen.open_ms) : "");
    row.draw(seen.sent);
    progress.value += 1;
  }
  if (iceRow && servers) {
    iceRow.show("running", "looking for ways");
    const ice = await examineIce(servers);
    findings = { ...findings, ice };
    iceRow.show(isIceGood(ice) ? "good" : "fair", describeIce(ice), milliseconds(ice.relay_ms).replace("–", ""));
  }
  progress.hidden = true;
  get("silence").hidden = false;
  conclude();
}

/** Say what it comes to. */
function conclude() {
  const verdict = verdictOf(findings);
  get("verdict-panel").dataset.level = verdict.level;
  get("verdict-panel").dataset.best = verdict.best ?? "none";
  say(get("verdict-title"), verdict.title);
  get("verdict-words").replaceChildren(...verdict.words.map((text) => element("p", "", text)));
  get("changes").replaceChildren(
    ...verdict.changes.map((key) => {
      const { title, why, settings } = CHANGES[key];
      const root = element("section", "change");
      root.dataset.change = key;
      root.append(element("h3", "", title), element("p", "", why));
      root.append(...settings.map(({ about, code }) => listing(about, code)));
      return root;
    }),
  );
  get("to-change").hidden = verdict.changes.length === 0;
  get("report").value = reportOf(findings, { ...here, when: examined });
  get("report-panel").hidden = false;
}

/** One thing at a time: what runs beside another would disturb it. @param {() => Promise<void>} work */
async function alone(work) {
  if (isRunning) return;
  isRunning = true;
  for (const id of ["examine", "idle-begin"]) get(id).disabled = true;
  try {
    await work();
  } catch (error) {
    if (error instanceof Refused && wantsToken(error.code)) signIn.ask(error.code);
    else say(get("complaint"), `Cannot begin: ${reason(error)}`);
    if (!(error instanceof Refused)) {
      findings = { poll: { isOpen: false, sent: [], why: reason(error) } };
      conclude();
    }
  } finally {
    isRunning = false;
    get("progress").hidden = true;
    for (const id of ["examine", "idle-begin"]) get(id).disabled = false;
  }
}

async function watch() {
  const seconds = Number(get("idle-seconds").value);
  const stop = new AbortController();
  const list = get("idle-checks");
  list.replaceChildren();
  const keys = /** @type {const} */ (["websocket", "sse", "longpoll"]).filter((key) => findings[key]?.isOpen);
  const rows = new Map(keys.map((key) => [key, new Row(list, `idle-${key}`, NAMES[key])]));
  for (const row of rows.values()) row.show("running", "open");
  const progress = get("idle-progress");
  const began = performance.now();
  progress.max = seconds;
  progress.value = 0;
  progress.hidden = false;
  get("idle-stop").hidden = false;
  get("idle-stop").onclick = () => stop.abort();
  const timer = setInterval(() => (progress.value = (performance.now() - began) / 1000), 250);
  try {
    findings = { ...findings, idle: await watchIdle(get("channel").value.trim(), seconds, [...keys], stop.signal) };
  } finally {
    clearInterval(timer);
    progress.hidden = true;
    get("idle-stop").hidden = true;
  }
  for (const { key, watched_s, cut_s, silent_s } of findings.idle ?? []) {
    const row = rows.get(/** @type {(typeof keys)[number]} */ (key));
    if (cut_s === undefined) row?.show("good", "not cut", inSeconds(watched_s));
    else row?.show("bad", `cut, after ${inSeconds(silent_s ?? 0)} of silence`, inSeconds(cut_s));
  }
  conclude();
}

const signIn = new SignIn(() => void alone(examine));
copies(get("copy"), () => get("report").value);

get("begin").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  void alone(examine);
});
get("idle").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  void alone(watch);
});
