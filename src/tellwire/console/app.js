/** The page: four lanes on one channel, a form that publishes, and the books that compare what arrived. */

import { setUpComposer } from "./composer.js";
import { get, grouped, reason, say } from "./elements.js";
import { Here } from "./here.js";
import { pause } from "./lanes/backoff.js";
import { credentials } from "./lanes/credentials.js";
import { LongPollLane } from "./lanes/longpoll.js";
import { readPage } from "./lanes/page.js";
import { PollLane } from "./lanes/poll.js";
import { SseLane } from "./lanes/sse.js";
import { WebSocketLane } from "./lanes/websocket.js";
import { Refused } from "./lanes/wire.js";
import { Ledger, parsePosition } from "./ledger.js";
import { Operator } from "./operator.js";
import { publish } from "./publisher.js";
import { SignIn, wantsToken } from "./signin.js";
import { Tabs } from "./tabs.js";
import { Track } from "./track.js";

/** @type {import("./track.js").Kind[]} */
const LANES = [
  { key: "poll", name: "Short polling", about: "GET, once a second", Lane: PollLane },
  { key: "longpoll", name: "Long polling", about: "GET that waits for news", Lane: LongPollLane },
  { key: "sse", name: "SSE", about: "EventSource, no end to it", isConnection: true, Lane: SseLane },
  { key: "websocket", name: "WebSocket", about: "both ways, one connection", isConnection: true, Lane: WebSocketLane },
];

let isDirty = false;
/** The WebSocket has come in. @type {(value?: unknown) => void} */
let entered = () => {};

/** Draw with the next frame, however much happens before it. */
function touch() {
  if (isDirty) return;
  isDirty = true;
  requestAnimationFrame(draw);
}

/** A page that some connection keeps a member needs no poll to do it. */
function isHeld() {
  return tracks.some(({ kind, state }) => kind.isConnection && (state === "live" || state === "opening"));
}

let wasHeld = true;

/** When the last connection goes, what polls are left hold the membership from then on, and hear what is said to it. */
function checkHold() {
  if (wasHeld === isHeld()) return;
  wasHeld = isHeld();
  for (const track of tracks) track.again();
}

/** @type {import("./lanes/wire.js").Attendance} */
const attendance = {
  wish: (isConnection) => {
    if (!here.isOpen) return undefined;
    if (isConnection) return "enter";
    if (isHeld()) return "watch";
    here.leased();
    return "enter";
  },
  state: () => here.state,
};

const here = new Here(() => tracks[3].tell());
const signIn = new SignIn(() => void enter());
const operator = new Operator(() => here.client);
const tabs = new Tabs(get("tabs"), (key) => (key === "operator" ? operator.start() : operator.stop()));

/** @type {import("./track.js").Desk} */
const desk = {
  channel: "",
  ledger: new Ledger(LANES.length, "."),
  here,
  signIn,
  attendance,
  touch,
  announce: (text) => say(get("announcer"), text),
  held: () => setTimeout(checkHold, 0),
  entered: () => entered(),
};

const tracks = LANES.map((kind, index) => new Track(kind, index, desk));
get("lanes").append(...tracks.map((track) => track.view.root));

const list = new Intl.ListFormat("en");

/** @param {Track[]} some */
function names(some) {
  return list.format(some.map((track) => track.kind.name));
}

function draw() {
  isDirty = false;
  if (!desk.channel) return;
  const verdicts = tracks.map((track) => desk.ledger.verdict(track.index));
  for (const track of tracks) {
    track.view.draw(verdicts[track.index], desk.ledger.newest(track.index, track.view.tickCount));
  }
  const faulty = tracks.filter(({ index }) => {
    const { lost, twice, disordered } = verdicts[index];
    return lost + twice + disordered > 0;
  });
  const behind = tracks.filter(({ index }) => verdicts[index].pending > 0);
  const most = Math.max(...verdicts.map(({ received, told, pending }) => received + told + pending));
  const verdict = get("verdict");
  let text = `All four agree: ${grouped(most)} ${most === 1 ? "message" : "messages"}, none lost, none twice.`;
  if (faulty.length > 0) text = `Something is wrong on ${names(faulty)}.`;
  else if (most === 0) text = "Four connections, one channel. Publish something.";
  else if (behind.length > 0) text = `${grouped(most)} published. Still to come on ${names(behind)}; nothing lost.`;
  verdict.dataset.kind = faulty.length > 0 ? "fault" : behind.length > 0 ? "behind" : "agree";
  say(verdict, text);
  const isAnyLive = tracks.some((track) => track.state !== "cut");
  get("cut-all").textContent = isAnyLive ? "Cut all four" : "Reconnect all four";
}

// The channel

/** @type {AbortController | undefined} */
let choosing;

/** Where all four begin, so that they can be compared. @param {string} name @param {AbortSignal} signal */
async function beginning(name, signal) {
  if (get("start").value === "now") return (await readPage(name, "now", { signal })).page.cursor;
  const { page } = await readPage(name, "earliest", { limit: 1, signal });
  const seq = page.messages[0]?.seq;
  return seq === undefined ? page.cursor : `${parsePosition(page.cursor)[0]}.${seq - 1}`;
}

async function choose() {
  const name = get("channel").value.trim();
  choosing?.abort();
  choosing = new AbortController();
  const { signal } = choosing;
  try {
    const cursor = await beginning(name, signal);
    await here.open(name, signal);
    if (signal.aborted) return;
    signIn.done();
    desk.channel = name;
    desk.ledger = new Ledger(tracks.length, cursor);
    const [first, ...others] = [...tracks].reverse();
    first.start(cursor);
    if (here.isOpen && credentials.name) {
      // Only a WebSocket comes in with its name at once; on the others it follows behind the one who came.
      await new Promise((resolve) => {
        entered = resolve;
        void pause(1000, signal).then(resolve);
      });
      if (signal.aborted) return;
    }
    for (const track of others) track.start(cursor);
    get("publish").dataset.ready = "true";
    history.replaceState(null, "", `#${encodeURIComponent(name)}`);
    complain("");
    touch();
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Refused && wantsToken(error.code)) {
      signIn.ask(error.code);
      if (!desk.channel) say(get("verdict"), "Nothing can be read without a token.");
      return;
    }
    complain(`Cannot read ${name}: ${reason(error)}`);
  }
}

/** Show the tabs to those who may look at more than one. */
function offerOperator() {
  void operator.mayLook().then((isOperator) => tabs.show(undefined, isOperator));
}

/** With another token: the operator's view or none, and the lanes from where they were. */
async function enter() {
  offerOperator();
  if (!desk.channel || desk.channel !== get("channel").value.trim()) return choose();
  choosing?.abort();
  choosing = new AbortController();
  try {
    await here.open(desk.channel, choosing.signal);
    complain("");
  } catch (error) {
    if (error instanceof Refused && wantsToken(error.code)) signIn.ask(error.code);
  }
  for (const track of tracks) track.reopen();
}

// Publishing

/** @param {string} text */
function complain(text) {
  get("complaint").textContent = text;
}

/** @param {unknown[]} items */
async function send(items) {
  if (!desk.channel || items.length === 0) return;
  here.own.rest();
  try {
    for (const position of await publish(desk.channel, items)) desk.ledger.published(position);
    complain("");
  } catch (error) {
    if (error instanceof Refused && wantsToken(error.code)) signIn.ask(error.code);
    complain(`Not published: ${reason(error)}`);
  }
  touch();
}

setUpComposer({ send, complain, ontyping: () => here.own.typing() });

get("cut-all").addEventListener("click", () => {
  const live = tracks.filter((track) => track.state !== "cut");
  if (live.length > 0) for (const track of live) track.cut();
  else for (const track of tracks) track.resume();
});

get("choose").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  void choose();
});

addEventListener("resize", touch);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", touch);

// A page that is put away (back/forward cache) must not hold connections; brought back, it begins anew.
addEventListener("pageshow", (event) => event.persisted && void choose());

/** The channel that the address names: the page at `/#orders` opens `orders`. */
function chooseFromAddress() {
  const written = location.hash.slice(1).replaceAll("+", "%2B"); // in a form's words a + would be a space
  const named = new URLSearchParams(`channel=${written}`).get("channel");
  get("channel").value = named || "news";
  void choose();
}

addEventListener("hashchange", chooseFromAddress);
chooseFromAddress();
offerOperator();
