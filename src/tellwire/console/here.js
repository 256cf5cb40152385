/** Who is here: the members of the channel, who of them is typing, and what they say to one alone. */

import { counted, element, get, grouped, reason, say } from "./elements.js";
import { credentials, randomText } from "./lanes/credentials.js";
import { Refused, ask, order } from "./lanes/wire.js";
import { describe } from "./publisher.js";
import { Roster, beatOf, isTyping, nameOf } from "./roster.js";
import { BELIEVED_MS, OwnState } from "./typing.js";

/**
 * @typedef {import("./lanes/wire.js").Member} Member
 * @typedef {import("./lanes/wire.js").Presence} Presence
 * @typedef {import("./lanes/wire.js").Push} Push
 * @typedef {import("./lanes/wire.js").Signal} Signal
 */

/** Members that are shown by name. */
const SHOWN = 60;

/** Direct messages that are kept on the page, and the numbers of those that came, by which none is shown twice. */
const TALK = 30;
const HEARD = 500;

/** Least milliseconds between two questions for the list. */
const ASK_MS = 2000;

const list = new Intl.ListFormat("en");

export class Here {
  #channel = "";
  /** The public name of this page's client, where the server has told it. */
  client = "";
  /** Whether this client may take part, in the present channel. */
  isOpen = false;
  #roster = new Roster();
  /**
   * Until when it is believed that someone is typing, and by which word of theirs.
   * @type {Map<string, { until: number, beat: unknown }>}
   */
  #typing = new Map();
  /** What those who are gone were called. @type {Map<string, string>} */
  #names = new Map();
  /** @type {Map<string, HTMLLIElement>} */
  #chips = new Map();
  /** @type {Set<string>} */
  #heard = new Set();
  #to = "";
  #isDirty = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #asking;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #doubt;
  /** Until when the server may take this client for a member though no connection of it is open. */
  #leasedUntil = 0;

  /** @param {() => boolean} tell Tells `state` over a connection that is open; false where there is none. */
  constructor(tell) {
    this.own = new OwnState(credentials.name, () => void this.#tell(tell));
    get("my-name").value = credentials.name;
    get("my-name").addEventListener("input", () => {
      credentials.name = get("my-name").value.trim();
      this.own.name = credentials.name;
    });
    get("direct").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      void this.#send();
    });
    get("direct-close").addEventListener("click", () => {
      const chip = this.#chips.get(this.#to);
      this.#address("");
      chip?.querySelector("button")?.focus();
    });
    get("members").addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const chip = /** @type {Element} */ (event.target).closest("button")?.closest("li");
      if (!chip) return;
      this.#address(chip.dataset.client === this.#to ? "" : (chip.dataset.client ?? ""));
      if (this.#to) get("direct-text").focus();
    });
    addEventListener("pagehide", () => this.leave());
  }

  get state() {
    return this.own.value;
  }

  /** Begin with a channel: ask who is there. @param {string} channel @param {AbortSignal} signal */
  async open(channel, signal) {
    this.isOpen = false;
    if (channel !== this.#channel) this.#names.clear();
    this.#channel = channel;
    this.#roster = new Roster();
    this.#typing.clear();
    this.#address("");
    try {
      const answer = await ask("v1/presence", { channel, session: credentials.session }, signal);
      this.isOpen = true;
      this.know(answer);
      this.own.again();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status === 401) throw error;
      const isForbidden = error instanceof Refused && error.code === "forbidden";
      this.#show(isForbidden ? "This token may not see who is in this channel." : `Not known: ${reason(error)}`);
    }
  }

  /** Say that a poll has just made this client a member: for a while, as it has no connection that would hold it. */
  leased() {
    this.#leasedUntil = performance.now() + 90_000;
  }

  /** The page goes away: what only a lease holds would else stay for a minute. */
  leave() {
    if (!this.isOpen || performance.now() > this.#leasedUntil) return;
    const body = { channel: this.#channel, session: credentials.session, enter: false };
    order("v1/presence", body, { outlives: true }).catch(() => {});
  }

  /** @param {() => boolean} tell */
  async #tell(tell) {
    if (!this.isOpen || tell()) return;
    const body = { channel: this.#channel, session: credentials.session, enter: true, state: this.state };
    try {
      this.leased();
      this.know(await order("v1/presence", body));
    } catch {
      // The lanes say it when the server cannot be reached, and with the next connection the state is told again.
    }
  }

  /** @param {Presence} answer */
  know(answer) {
    if (!this.isOpen || answer.channel !== this.#channel) return;
    this.client = answer.client;
    this.#roster.know(answer);
    for (const member of this.#roster.members.values()) this.#note(member);
    this.#touch();
  }

  /** Messages are missing. @param {import("./lanes/wire.js").Gap} gap */
  gap(gap) {
    if (gap.reason === "epoch" || gap.channels.includes(`$presence:${this.#channel}`)) this.#askAgain();
  }

  /**
   * Take what a lane tells.
   * @param {Push} push @param {string} cursor
   * @returns {string} What to note on the lane, if anything.
   */
  take(push, cursor) {
    if (!this.isOpen || push.channel !== this.#channel) return "";
    if (push.type === "signal") {
      this.#hear(push, cursor);
      return "";
    }
    if (this.#roster.take(push, cursor)) this.#askAgain();
    this.#touch();
    if (push.type === "count") return "";
    const { client } = push.member;
    if (push.type !== "leave") this.#note(push.member);
    if (push.type === "update" || client === this.client) return "";
    const name = this.#names.get(client) ?? nameOf(push.member);
    return push.type === "join" ? `${name} came` : `${name} left`;
  }

  /** @param {Member} member */
  #note(member) {
    const { client } = member;
    this.#names.delete(client); // so that the oldest is the first
    this.#names.set(client, nameOf(member));
    if (this.#names.size > 2000) this.#names.delete(/** @type {string} */ (this.#names.keys().next().value));
    // The lanes tell the same thing one after the other; only a new word of its own is believed for a while longer.
    const known = this.#typing.get(client);
    if (isTyping(member) && (!known || known.beat !== beatOf(member))) {
      this.#typing.set(client, { until: performance.now() + BELIEVED_MS, beat: beatOf(member) });
    }
  }

  #askAgain() {
    if (this.#asking !== undefined) return;
    const channel = this.#channel;
    const wait_ms = this.#roster.isLarge ? ASK_MS * 5 : ASK_MS * Math.random();
    this.#asking = setTimeout(async () => {
      this.#asking = undefined;
      try {
        this.know(await ask("v1/presence", { channel, session: credentials.session }));
      } catch (error) {
        if (!(error instanceof Refused && error.isFinal) && channel === this.#channel) this.#askAgain();
      }
    }, wait_ms);
  }

  // Drawing

  #touch() {
    if (this.#isDirty) return;
    this.#isDirty = true;
    requestAnimationFrame(() => {
      this.#isDirty = false;
      this.#draw();
    });
  }

  /** Show a sentence instead of members. @param {string} sentence */
  #show(sentence) {
    say(get("here-count"), sentence);
    get("here").dataset.state = "closed";
    get("members").replaceChildren();
    this.#chips.clear();
    say(get("typing"), "");
  }

  #draw() {
    if (!this.isOpen) return;
    const { clients, users, isLarge, members } = this.#roster;
    get("here").dataset.state = "open";
    const count = `${counted(clients, "client")}, ${counted(users, "user")}`;
    say(get("here-count"), isLarge ? `${count}: too many to name` : count);
    const shown = [...members.values()].slice(0, SHOWN);
    const me = members.get(this.client);
    if (me && !shown.includes(me)) shown.unshift(me);
    const gone = new Set(this.#chips.keys());
    shown.forEach((member, index) => {
      gone.delete(member.client);
      const chip = this.#chip(member);
      const there = get("members").children[index];
      if (there !== chip) get("members").insertBefore(chip, there ?? null);
    });
    for (const client of gone) {
      this.#chips.get(client)?.remove();
      this.#chips.delete(client);
    }
    const more = members.size - shown.length;
    get("members-more").hidden = more <= 0;
    say(get("members-more"), `and ${grouped(more)} more`);
    get("direct-gone").hidden = !this.#to || isLarge || members.has(this.#to);
    this.#drawTyping();
  }

  /** @param {Member} member @returns {HTMLLIElement} */
  #chip(member) {
    const isMe = member.client === this.client;
    let chip = this.#chips.get(member.client);
    if (chip && (chip.dataset.me === "true") !== isMe) chip = void chip.remove();
    if (!chip) {
      chip = element("li", "chip");
      chip.dataset.client = member.client;
      chip.dataset.me = String(isMe);
      const body = element(isMe ? "span" : "button", "who");
      if (body instanceof HTMLButtonElement) body.type = "button";
      body.append(element("bdi", "name"), element("span", "aside"));
      chip.append(body);
      this.#chips.set(member.client, chip);
    }
    const name = nameOf(member);
    const [shown, aside] = chip.querySelectorAll(".name, .aside");
    say(shown, name);
    const user = member.user !== undefined && member.user !== name ? member.user : "";
    say(aside, isMe ? "you" : user);
    const body = /** @type {HTMLElement} */ (chip.firstElementChild);
    body.title = isMe ? `client ${member.client}` : `Write to client ${member.client} alone`;
    if (!isMe) body.setAttribute("aria-pressed", String(member.client === this.#to));
    return chip;
  }

  #drawTyping() {
    const now = performance.now();
    const names = [];
    let next = Infinity;
    for (const [client, { until }] of this.#typing) {
      const member = this.#roster.members.get(client);
      if (!member || !isTyping(member)) this.#typing.delete(client);
      const isBelieved = member !== undefined && isTyping(member) && until > now && client !== this.client;
      this.#chips.get(client)?.classList.toggle("is-typing", isBelieved);
      if (!isBelieved) continue;
      next = Math.min(next, until);
      names.push(nameOf(member));
    }
    const shown = names.length > 3 ? [...names.slice(0, 2), `${names.length - 2} others`] : names;
    const text = names.length === 0 ? "" : `${list.format(shown)} ${names.length === 1 ? "is" : "are"} typing…`;
    say(get("typing"), text);
    clearTimeout(this.#doubt);
    if (next < Infinity) this.#doubt = setTimeout(() => this.#touch(), next - now + 20);
  }

  // Direct messages

  /** @param {string} client Whom to write to; nobody where it is empty. */
  #address(client) {
    const to = this.#names.get(client) ?? "";
    this.#to = client;
    get("direct").hidden = !client;
    say(get("direct-to"), to);
    say(get("direct-complaint"), "");
    get("direct-text").setAttribute("aria-label", `Message for ${to} alone`);
    for (const [each, chip] of this.#chips) {
      chip.querySelector("button")?.setAttribute("aria-pressed", String(each === client));
    }
    this.#touch();
  }

  async #send() {
    const text = get("direct-text").value;
    const to = this.#to;
    if (!text.trim() || !to) return;
    const body = { channel: this.#channel, session: credentials.session, to, data: { text }, id: randomText() };
    try {
      await order("v1/send", body);
      get("direct-text").value = "";
      say(get("direct-complaint"), "");
      this.#talk("you", this.#names.get(to) ?? "", text);
    } catch (error) {
      say(get("direct-complaint"), `Not sent: ${reason(error)}`);
    }
  }

  /** @param {Signal} signal @param {string} cursor */
  #hear(signal, cursor) {
    const key = `${cursor.split(".")[0]}.${signal.seq}`;
    if (this.#heard.has(key)) return; // another lane was faster
    this.#heard.add(key);
    if (this.#heard.size > HEARD) this.#heard.delete(/** @type {string} */ (this.#heard.keys().next().value));
    const from = this.#names.get(signal.from) ?? nameOf({ client: signal.from, user: signal.user });
    this.#talk(from, "you", (describe(signal.data) ?? "").slice(0, 500));
  }

  /** @param {string} from @param {string} to @param {string} text */
  #talk(from, to, text) {
    const row = element("li", from === "you" ? "talk is-own" : "talk");
    row.append(element("bdi", "name", from), " to ", element("bdi", "name", to), ": ", element("bdi", "words", text));
    const talks = get("talks");
    talks.append(row);
    talks.hidden = false;
    while (talks.childElementCount > TALK) talks.firstElementChild?.remove();
    talks.scrollTop = talks.scrollHeight;
  }
}
