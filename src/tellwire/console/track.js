import { get } from "./elements.js";
import { LaneView } from "./lane_view.js";
import { parsePosition } from "./ledger.js";
import { now, sentAt } from "./publisher.js";
import { wantsToken } from "./signin.js";

/** @typedef {import("./lanes/wire.js").LaneState | "cut"} State */
/** @typedef {{ key: string, name: string, about: string, isConnection?: boolean, Lane: any }} Kind */

/**
 * What the lanes have in common: the channel that is open, its books, and whom to tell.
 * @typedef {object} Desk
 * @property {string} channel
 * @property {import("./ledger.js").Ledger} ledger
 * @property {import("./here.js").Here} here
 * @property {import("./signin.js").SignIn} signIn
 * @property {import("./lanes/wire.js").Attendance} attendance
 * @property {() => void} touch Something is to be drawn.
 * @property {(text: string) => void} announce
 * @property {() => void} held A connection that may hold the membership has come, or gone.
 * @property {() => void} entered
 */

/** @type {Record<State, string>} */
const STATES = { opening: "opening", live: "live", waiting: "reconnecting", failed: "failed", cut: "cut" };

/** One lane with its connection, its place and its part of the page. */
export class Track {
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

  /** @param {Kind} kind @param {number} index @param {Desk} desk */
  constructor(kind, index, desk) {
    this.kind = kind;
    this.index = index;
    this.desk = desk;
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
    this.#lane = new this.kind.Lane(this.desk.channel, this.#events(), this.desk.attendance);
    this.#lane.open(cursor);
  }

  /** @returns {import("./lanes/wire.js").LaneEvents} */
  #events() {
    return {
      onstate: (state, detail, code) => {
        if (state === "live" && this.state !== "live") this.#openedAt = now();
        if (state === "waiting" || state === "failed") this.#isResuming = true;
        this.#setState(state, detail);
        if (state === "failed" && wantsToken(code)) this.desk.signIn.ask(/** @type {string} */ (code));
      },
      onpush: (push, cursor) => {
        const note = this.desk.here.take(push, cursor);
        if (note) this.view.addNote(note, "here");
        this.desk.touch();
      },
      onpresence: (answer) => {
        this.desk.here.know(answer);
        this.desk.entered();
      },
      onidentity: (user, expires_in_ms) => this.desk.signIn.signedIn(user, expires_in_ms),
      onmessages: (messages, cursor) => {
        const at = now();
        const [epoch] = parsePosition(cursor);
        for (const message of messages) {
          const sent = sentAt(message.data);
          const isLate = sent !== undefined && sent < this.#openedAt;
          if (message.seq !== undefined) {
            if (this.#isResuming) this.#noteResume();
            this.desk.ledger.received(this.index, epoch, message.seq);
          }
          this.view.addMessage(message, sent === undefined ? undefined : at - sent, isLate);
        }
        this.cursor = cursor;
        this.desk.ledger.reached(this.index, cursor);
        this.view.showCursor(cursor);
        this.desk.touch();
      },
      ongap: (gap) => {
        this.desk.here.gap(gap);
        if (!gap.channels.includes(this.desk.channel)) return;
        this.desk.ledger.gap(this.index, gap);
        this.cursor = gap.to;
        this.view.addNote(`gap (${gap.reason}): messages after ${gap.from} up to ${gap.to} may be missing`, "gap");
        this.desk.announce(`${this.kind.name}: a gap, reason ${gap.reason}`);
        this.desk.touch();
      },
      onbytes: (exact, estimated) => {
        this.view.addBytes(exact, estimated);
        this.desk.touch();
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
    if (this.kind.isConnection) this.desk.held();
    this.desk.touch();
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
    this.desk.announce(`${this.kind.name} is cut for ${seconds} seconds`);
    this.#countdown = setInterval(() => {
      const left = Math.ceil((this.#endOfCut - performance.now()) / 1000);
      if (left <= 0) this.resume();
      else this.view.showCut(`Reconnect (${left} s)`, true);
    }, 200);
  }

  resume() {
    clearInterval(this.#countdown);
    this.view.showCut("Cut", false);
    this.desk.announce(`${this.kind.name} comes back`);
    this.#lane?.open(this.cursor);
  }
}
