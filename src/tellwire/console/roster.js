import { parsePosition } from "./ledger.js";

/**
 * @typedef {import("./lanes/wire.js").Member} Member
 * @typedef {import("./lanes/wire.js").Presence} Presence
 * @typedef {import("./lanes/wire.js").Coming} Coming
 * @typedef {import("./lanes/wire.js").Count} Count
 */

/** Pushes that are kept, in case that a list comes which is older than they are. */
const KEPT = 1000;

/**
 * Who is in a channel (spec/protocol.md, section 15.3), told by several lanes at once.
 *
 * Every lane has all pushes in order, though not at the same time. So whichever is first counts, and what is not beyond
 * the newest one is old news. Lists are asked for beside the lanes and may be older than what is known already: then
 * what came after them is done again.
 */
export class Roster {
  /** @type {Map<string, Member>} */
  members = new Map();
  clients = 0;
  users = 0;
  /** There are too many for a list. */
  isLarge = false;
  #epoch = "";
  #seq = 0;
  /** @type {[push: Coming | Count, epoch: string][]} */
  #recent = [];

  /** Take a list. @param {Presence} answer */
  know(answer) {
    const [epoch, seq] = parsePosition(answer.cursor);
    this.#epoch = epoch;
    this.#seq = seq;
    this.isLarge = answer.members === null;
    this.members = new Map((answer.members ?? []).map((member) => [member.client, member]));
    this.clients = answer.clients;
    this.users = answer.users;
    for (const [push, from] of this.#recent) this.#apply(push, from);
  }

  /**
   * Take what a lane tells.
   * @param {Coming | Count} push
   * @param {string} cursor The lane's: it has the epoch.
   * @returns {boolean} Whether the list has to be asked for again.
   */
  take(push, cursor) {
    const [epoch] = parsePosition(cursor);
    const isNews = epoch !== this.#epoch || push.seq > this.#seq;
    if (isNews) {
      this.#recent.push([push, epoch]);
      if (this.#recent.length > KEPT) this.#recent.shift();
    }
    this.#apply(push, epoch);
    return epoch !== this.#epoch || (isNews && push.type === "count");
  }

  /** @param {Coming | Count} push @param {string} epoch */
  #apply(push, epoch) {
    if (epoch !== this.#epoch || push.seq <= this.#seq) return;
    this.#seq = push.seq;
    if (push.type === "count") {
      this.isLarge = true;
      this.members.clear();
      this.clients = push.clients;
      this.users = push.users;
      return;
    }
    if (this.isLarge) return;
    const { type, member } = push;
    if (type === "leave") this.members.delete(member.client);
    else this.members.set(member.client, member);
    this.clients = this.members.size;
    // One without a user counts as a user of its own.
    const users = [...this.members.values()].map(({ user, client }) => (user === undefined ? [client] : user));
    this.users = new Set(users).size;
  }
}

/** What a text could be made to look otherwise with: line ends, controls, and marks that turn its direction. */
const TRICKS = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

const NAME_MAX = 40;

/** @param {unknown} text */
function clean(text) {
  if (typeof text !== "string") return "";
  const chars = [...text.replaceAll(TRICKS, " ").trim()];
  return chars.length > NAME_MAX ? `${chars.slice(0, NAME_MAX).join("")}…` : chars.join("");
}

/** @param {unknown} value @returns {Record<string, unknown>} */
function object(value) {
  return typeof value === "object" && value !== null ? /** @type {Record<string, unknown>} */ (value) : {};
}

/** What to call a member: by its own word, by its token's, or by what tells it from others. @param {Member} member */
export function nameOf({ client, user, info, state }) {
  return clean(object(state).name) || clean(object(info).name) || clean(user) || `guest ${client.slice(0, 4)}`;
}

/** @param {Member} member */
export function isTyping({ state }) {
  return object(state).typing === true;
}

/** @param {Member} member */
export function beatOf({ state }) {
  return object(state).beat;
}
