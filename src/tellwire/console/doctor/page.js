/** The page /doctor: what gets through from this browser, over this network, and what to change where it does not. */

import { copies, listing } from "../copying.js";
import { element, get, reason, say } from "../elements.js";
import { Refused, address, ask, check, order } from "../lanes/wire.js";
import { SignIn, wantsToken } from "../signin.js";
import { CHANGES, settingsFor } from "./changes.js";
import { Row } from "./checklist.js";
import { examineIce, iceServers } from "./ice.js";
import { conditionOfIce } from "./ice_words.js";
import { NAMES, watchIdle } from "./idle.js";
import { describeIdle, shared, stateOfIdle } from "./idle_words.js";
import {
  probeDataChannel,
  probeEvents,
  probeLines,
  probeLongPolling,
  probePolling,
  probeWebSocket,
  read,
  wrongOf,
} from "./probes.js";
import { inTime } from "./publishing.js";
import { TRANSPORTS, describeIce, describeSeen, milliseconds, reportOf } from "./report.js";
import { conditionOf, verdictOf } from "./verdict.js";

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

/** @type {Record<import("./ice_words.js").IceCondition, import("./checklist.js").RowState>} */
const ICE_STATES = { unknown: "unknown", good: "good", tcp: "fair", bad: "bad" };

/** How long the second stream is waited for, where the first was held back. */
const HURRY_MS = 2000;

const QUESTION = get("verdict-title").textContent;

/** @type {Findings} */
let findings = {};
/** @type {Omit<import("./report.js").Circumstances, "when">} */
let here = { server: location.origin, version: "?", protocol: "", proxy: "", browser: navigator.userAgent };
let examined = new Date();
let isRunning = false;

/** What was seen makes this much of a row. @param {import("./probes.js").Seen} seen */
function stateOf(seen) {
  const condition = conditionOf(seen);
  return condition === "good" ? "good" : condition === "clumped" ? "fair" : "bad";
}

/** The version of the server, the protocol that its answers come over, and what they call themselves on the way. */
async function lookAtServer() {
  const response = await inTime((signal) => fetch(address("healthz"), { cache: "no-store", signal }));
  await check(response);
  const { version } = await response.json();
  const entry = performance.getEntriesByName(new URL("healthz", document.baseURI).href, "resource").at(-1);
  const protocol = /** @type {PerformanceResourceTiming | undefined} */ (entry)?.nextHopProtocol ?? "";
  // Tellwire itself says neither.
  const proxy = [...new Set(["server", "via"].flatMap((name) => response.headers.get(name) ?? []))].join(", ").slice(0, 100);
  here = { ...here, version, protocol, proxy };
}

/** What the server has that not every one has: it describes itself. */
async function offered() {
  const { paths } = await inTime((signal) => ask("openapi.json", {}, signal)).catch(() => ({ paths: {} }));
  const canRtc = typeof RTCPeerConnection === "function"; // some companies' browsers have it switched off
  return { webrtc: canRtc && "/v1/rtc" in paths, ice: canRtc && "/v1/ice-servers" in paths };
}

/**
 * Whether the doctor may publish here; where it may not, streams are opened all the same.
 * @param {string} channel @returns {Promise<{ mayPublish: boolean, stranger?: string }>}
 */
async function publishing(channel) {
  try {
    await inTime((signal) => order("v1/messages", { channel, data: { doctor: "begins" } }, { signal }));
    return { mayPublish: true };
  } catch (error) {
    if (error instanceof Refused && error.code === "forbidden") return { mayPublish: false };
    // A page's requests to its own server say where it is from when they publish, and not when they read.
    if (error instanceof Refused && error.code === "forbidden_origin") return { mayPublish: false, stranger: error.message };
    throw error;
  }
}

/** Whether the server still answers, and not that it is about to go (503), or a proxy for it (502). @param {string} channel */
async function isThere(channel) {
  try {
    await inTime((signal) => read(channel, "now", { signal }));
    await inTime((signal) => ask("readyz", {}, signal));
    return true;
  } catch (error) {
    return error instanceof Refused && (error.code !== "" || error.status === 404) && error.status < 500;
  }
}

/** Say what is looked at, to those who see it and to those who hear it. @param {string} what */
function tell(what) {
  say(get("verdict-title"), what);
  say(get("announcer"), what);
}

async function examine() {
  const channel = get("channel").value.trim();
  findings = {};
  examined = new Date();
  for (const id of ["checks", "idle-checks", "verdict-words"]) get(id).replaceChildren();
  for (const id of ["seen", "silence", "to-change", "report-panel"]) get(id).hidden = true;
  get("verdict-panel").dataset.level = "none";
  tell("Looking for the server …");
  const { cursor } = await inTime((signal) => read(channel, "now", { signal }));
  signIn.done();
  await lookAtServer().catch(() => {}); // it is for the report only
  const { mayPublish, stranger } = await publishing(channel);
  const run = { channel, cursor, mayPublish };
  if (stranger) findings = { stranger };
  const has = await offered();
  const servers = has.ice ? await iceServers() : undefined;
  const present = TRANSPORTS.filter(([key]) => key !== "webrtc" || has.webrtc);
  const rows = new Map(present.map(([key, name]) => [key, new Row(get("checks"), key, name)]));
  const iceRow = servers && new Row(get("checks"), "ice", "UDP and TURN");
  get("seen").hidden = false;
  const progress = get("progress");
  progress.hidden = false;
  progress.max = rows.size + (iceRow ? 1 : 0);
  progress.value = 0;
  for (const [key, name] of present) {
    const row = rows.get(key);
    tell(`Looking at ${name} …`);
    row?.show("running", "opening");
    // What has held back one stream for as long as the clients would bear need not be waited for as long again.
    const patience_ms = key === "ndjson" && findings.sse?.isLate ? HURRY_MS : undefined;
    const seen = await PROBES[key]({ ...run, patience_ms });
    findings = { ...findings, [key]: seen };
    row?.show(stateOf(seen), describeSeen(seen), seen.isOpen ? `open in ${milliseconds(seen.open_ms)}` : "");
    row?.draw(seen.sent);
    progress.value += 1;
    const isDoubtful = stateOf(seen) === "bad" || seen.unpublished !== undefined;
    if (isDoubtful && !(await isThere(channel))) {
      findings = { ...findings, isGone: true };
      for (const each of rows.values()) if (each.root.dataset.state === "waiting") each.show("unknown", "not looked at");
      iceRow?.show("unknown", "not looked at");
      conclude();
      return;
    }
  }
  if (iceRow && servers) {
    tell("Looking for ways over UDP and TURN …");
    iceRow.show("running", "looking for ways");
    const ice = await examineIce(servers);
    findings = { ...findings, ice };
    const took = ice.relay_ms === undefined ? "" : `open in ${milliseconds(ice.relay_ms)}`;
    iceRow.show(ICE_STATES[conditionOfIce(ice)], describeIce(ice), took);
  }
  get("silence").hidden = false;
  conclude();
}

/** Say what it comes to. */
function conclude() {
  const verdict = verdictOf(findings);
  get("verdict-panel").dataset.level = verdict.level;
  get("verdict-panel").dataset.best = verdict.best ?? "none";
  tell(verdict.title);
  get("verdict-words").replaceChildren(...verdict.words.map((text) => element("p", "", text)));
  get("changes").replaceChildren(
    ...verdict.changes.map((key) => {
      const { title, why } = CHANGES[key];
      const root = element("section", "change");
      root.dataset.change = key;
      root.append(element("h3", "", title), element("p", "", why));
      root.append(...settingsFor(CHANGES[key], here.proxy).map(({ about, code }) => listing(about, code)));
      return root;
    }),
  );
  get("to-change").hidden = verdict.changes.length === 0;
  get("report").value = reportOf(findings, { ...here, when: examined });
  get("report-panel").hidden = false;
}

/** Say why nothing could be looked at. @param {unknown} error */
function giveUp(error) {
  const isServers = error instanceof Refused && error.code !== "";
  if (!isServers || error.code === "forbidden_origin") {
    findings = { poll: { isOpen: false, sent: [], ...wrongOf(error) } };
    conclude();
    return;
  }
  tell(QUESTION ?? "");
  if (wantsToken(error.code)) signIn.ask(error.code);
  else say(get("complaint"), `Cannot begin: ${reason(error)}`);
}

/** One thing at a time: what runs beside another would disturb it. @param {() => Promise<void>} work */
async function alone(work) {
  if (isRunning) return;
  isRunning = true;
  const focused = document.activeElement;
  for (const id of ["examine", "idle-begin"]) get(id).disabled = true;
  say(get("complaint"), "");
  try {
    await work();
  } catch (error) {
    giveUp(error);
  } finally {
    isRunning = false;
    get("progress").hidden = true;
    for (const id of ["examine", "idle-begin"]) get(id).disabled = false;
    // A button that is switched off loses the keyboard; it goes on from there.
    if (document.activeElement === document.body && focused instanceof HTMLElement) focused.focus();
  }
}

async function watch() {
  const channel = get("channel").value.trim();
  const seconds = Number(get("idle-seconds").value);
  const stop = new AbortController();
  const list = get("idle-checks");
  list.replaceChildren();
  const keys = /** @type {const} */ (["websocket", "sse", "longpoll"]).filter((key) => findings[key]?.isOpen);
  const rows = new Map(keys.map((key) => [/** @type {string} */ (key), new Row(list, `idle-${key}`, NAMES[key])]));
  for (const row of rows.values()) row.show("running", "open");
  const progress = get("idle-progress");
  const began = performance.now();
  progress.max = seconds;
  progress.value = 0;
  progress.hidden = false;
  get("idle-stop").hidden = false;
  get("idle-stop").onclick = () => stop.abort();
  say(get("announcer"), `Watching idle connections for ${seconds} seconds …`);
  const timer = setInterval(() => (progress.value = (performance.now() - began) / 1000), 250);
  const show = (/** @type {import("./idle.js").Idle} */ each) =>
    rows.get(each.key)?.show(stateOfIdle(each), describeIdle(each));
  /** @type {import("./idle.js").Idle[]} */
  let idle;
  try {
    const told = await watchIdle(channel, seconds, [...keys], stop.signal, (each) => {
      show(each);
      if (each.cut_s !== undefined) say(get("announcer"), `${each.name} was ${describeIdle(each)}.`);
    });
    idle = shared(told);
    idle.forEach(show);
  } finally {
    clearInterval(timer);
    progress.hidden = true;
    get("idle-stop").hidden = true;
  }
  // A server that ends cuts everything, too, and no proxy is to blame for that.
  const isGone = idle.some(({ cut_s }) => cut_s !== undefined) && !(await isThere(channel));
  findings = { ...findings, idle, isGone };
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
