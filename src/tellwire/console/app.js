/** The page: four lanes on one channel, a form that publishes, and the books that compare what arrived. */

import { setUpComposer } from "./composer.js";
import { get, grouped, reason, say } from "./elements.js";
import { Here } from "./here.js";
import { LaneView } from "./lane_view.js";
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
import { now, publish, sentAt } from "./publisher.js";
import { SignIn, wantsToken } from "./signin.js";
import { Tabs } from "./tabs.js";

/** @typedef {import("./lanes/wire.js").LaneState | "cut"} State */
/** @typedef {{ key: string, name: string, about: string, isConnection?: boolean, Lane: any }} Kind */

/** @type {Kind[]} */
const LANES = [
  { key: "poll", name: "Short polling", about: "GET, once a second", Lane: PollLane },
  { key: "longpoll", name: "Long polling", about: "GET that waits for news", Lane: LongPollLane },
  { key: "sse", name: "SSE", about: "EventSource, one endless answer", isConnection: true, Lane: SseLane },
  { key: "websocket", name: "WebSocket", about: "both ways, one connection", isConnection: true, Lane: WebSocketLane },
];

/** @type {Record<State, string>} */
const STATES = { opening: "opening", live: "live", waiting: "reconnecting", failed: "failed", cut: "cut" };

/** @type {Ledger} */
let ledger;
let channel = "";
let isDirty = false;
/** The WebSocket has come in. @type {(value?: unknown) => void} */
let entered = () => {};

/** Draw with the next frame, however much happens before it. */
function touch() {
  if (isDirty) return;
  isDirty = true;
  requestAnimationFrame(draw);
}

/** Tell those who do not see it. @param {string} text */
function announce(text) {
  get("announcer").textContent = text;
}

/** One lane with its connection, its place and its part of the page. */
class Track {
  cursor = "";
  /** @type {State} */
  state = "opening";
  #openedAt = 0;
  #isResuming = false;
  #endOfCut = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #countdown;
  /** @type {any} */
  #lane;

  /** @param {Kind} kind @param {number} index */
  constructor(kind, index) {
    this.kind = kind;
    this.index = index;
    this.view = new LaneView(get("lane-template"), kind);
    this.view.parts.cut.addEventListener("click", () => (this.state === "cut" ? this.resume() : this.cut()));
    this.view.showCut("Cut", false);
  }

  /** @param {string} cursor */
  start(cursor) {
    clearInterval(this.#countdown);
    this.#lane?.close();
    this.#isResuming = false;
    this.view.clear();
    this.view.showCut("Cut", false);
    this.cursor = cursor;
    this.view.showCursor(cursor);
    this.#lane = new this.kind.Lane(channel, this.#events(), attendance);
    this.#lane.open(cursor);
  }

  /** @returns {import("./lanes/wire.js").LaneEvents} */
  #events() {
    return {
      onstate: (state, detail, code) => {
        if (state === "live" && this.state !== "live") this.#openedAt = now();
        if (state === "waiting" || state === "failed") this.#isResuming = true;
        this.#setState(state, detail);
        if (state === "failed" && wantsToken(code)) signIn.ask(/** @type {string} */ (code));
      },
      onpush: (push, cursor) => {
        const note = here.take(push, cursor);
        if (note) this.view.addNote(note, "here");
        touch();
      },
      onpresence: (answer) => {
        here.know(answer);
        entered();
      },
      onidentity: (user, expires_in_ms) => signIn.signedIn(user, expires_in_ms),
      onmessages: (messages, cursor) => {
        const at = now();
        const [epoch] = parsePosition(cursor);
        for (const message of messages) {
          const sent = sentAt(message.data);
          const isLate = sent !== undefined && sent < this.#openedAt;
          if (message.seq !== undefined) {
            if (this.#isResuming) this.#noteResume();
            ledger.received(this.index, epoch, message.seq);
          }
          this.view.addMessage(message, sent === undefined ? undefined : at - sent, isLate);
        }
        this.cursor = cursor;
        ledger.reached(this.index, cursor);
        this.view.showCursor(cursor);
        touch();
      },
      ongap: (gap) => {
        here.gap(gap);
        if (!gap.channels.includes(channel)) return;
        ledger.gap(this.index, gap);
        this.cursor = gap.to;
        this.view.addNote(`gap (${gap.reason}): messages after ${gap.from} up to ${gap.to} may be missing`, "gap");
        announce(`${this.kind.name}: a gap, reason ${gap.reason}`);
        touch();
      },
      onbytes: (exact, estimated) => {
        this.view.addBytes(exact, estimated);
        touch();
      },
    };
  }

  #noteResume() {
    this.#isResuming = false;
    this.view.addNote(`went on after ${this.cursor}`, "resume");
  }

  /** @param {State} state @param {string} [detail] */
  #setState(state, detail) {
    this.state = state;
    this.view.showState(state, STATES[state], detail);
    if (this.kind.isConnection) setTimeout(checkHold, 0);
    touch();
  }

  /** Something new is to be said of this client; false where this lane cannot. */
  tell() {
    return this.state === "live" && this.#lane.tell();
  }

  /** What is asked of presence has changed. */
  again() {
    if (this.state === "live") this.#lane.again?.();
  }

  /** Come back as someone else: from where it was. */
  reopen() {
    if (this.state === "cut" || !this.#lane) return;
    this.#lane.close();
    this.#isResuming = true;
    this.#lane.open(this.cursor);
  }

  /** Close the connection for the chosen time, and come back with the cursor. */
  cut() {
    if (this.state === "cut" || !this.#lane) return;
    const seconds = Number(get("cut-seconds").value);
    this.#lane.close();
    this.#isResuming = true;
    this.#setState("cut");
    this.#endOfCut = performance.now() + seconds * 1000;
    this.view.showCut(`Reconnect (${seconds} s)`, true);
    announce(`${this.kind.name} is cut for ${seconds} seconds`);
    this.#countdown = setInterval(() => {
      const left = Math.ceil((this.#endOfCut - performance.now()) / 1000);
      if (left <= 0) this.resume();
      else this.view.showCut(`Reconnect (${left} s)`, true);
    }, 200);
  }

  resume() {
    clearInterval(this.#countdown);
    this.view.showCut("Cut", false);
    announce(`${this.kind.name} comes back`);
    this.#lane?.open(this.cursor);
  }
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

const tracks = LANES.map((kind, index) => new Track(kind, index));
get("lanes").append(...tracks.map((track) => track.view.root));

const list = new Intl.ListFormat("en");

/** @param {Track[]} some */
function names(some) {
  return list.format(some.map((track) => track.kind.name));
}

function draw() {
  isDirty = false;
  if (!ledger) return;
  const verdicts = tracks.map((track) => ledger.verdict(track.index));
  for (const track of tracks) {
    track.view.draw(verdicts[track.index], ledger.newest(track.index, track.view.tickCount));
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
    channel = name;
    ledger = new Ledger(tracks.length, cursor);
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
    if (error instanceof Refused && wantsToken(error.code)) signIn.ask(error.code);
    complain(`Cannot read ${name}: ${reason(error)}`);
  }
}

/** With another token: the operator's view or none, and the lanes from where they were. */
async function enter() {
  const isOperator = await operator.mayLook();
  tabs.show(isOperator ? undefined : "lanes", isOperator);
  if (!channel || channel !== get("channel").value.trim()) return choose();
  choosing?.abort();
  choosing = new AbortController();
  try {
    await here.open(channel, choosing.signal);
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
  if (!channel || items.length === 0) return;
  here.own.rest();
  try {
    for (const position of await publish(channel, items)) ledger.published(position);
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
void operator.mayLook().then((isOperator) => tabs.show(undefined, isOperator));
