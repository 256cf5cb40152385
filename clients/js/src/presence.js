import { Place } from "./cursor.js";
import { Emitter } from "./emitter.js";

/**
 * @typedef {import("./wire.js").Member} Member
 * @typedef {{clients: number, users: number}} Count
 *
 * @typedef {object} PresenceEvents
 * @property {Member} join
 * @property {Member} update
 * @property {Member} leave
 * @property {Map<string, Member>} members Who is there has changed, or is known now.
 * @property {Count} count
 * @property {import("./errors.js").TellwireError} error
 */

/**
 * Who is in a channel, kept up to date while connections come and go: after each of them the members are asked for
 * again, and what is different is told as `join`, `update` and `leave`.
 * @extends {Emitter<PresenceEvents>}
 */
export class Presence extends Emitter {
  /** By client id; empty where there are so many that the server only counts. @type {Map<string, Member>} */
  members = new Map();
  clients = 0;
  users = 0;
  /** Whether this client is to be a member. */
  isIn = false;
  /** @internal Up to where it is known who is there. */
  place = new Place();
  /** @internal The server is being asked. @type {Promise<unknown> | undefined} */
  asking;
  /** @type {any} */
  #state = undefined;
  /** Whether the server may take this client for a member. */
  #wasIn = false;
  /** What it is told of that at present. @type {boolean | undefined} */
  #told;
  /** What came while the members were asked for. @type {[push: import("./wire.js").PresencePush, epoch: string][] | undefined} */
  #early;

  /**
   * @param {string} channel
   * @param {{ask: (room: Presence) => Promise<void>, ended: () => void}} host
   */
  constructor(channel, host) {
    super();
    this.channel = channel;
    this.host = host;
  }

  /** Become a member, or say something new of oneself; without a connection, with the next one. @param {any} [state] */
  async enter(state) {
    const wasIn = this.isIn;
    this.isIn = true;
    if (state !== undefined) this.#state = state;
    try {
      await this.host.ask(this);
    } catch (error) {
      this.isIn = wasIn;
      throw error;
    }
  }

  /** Be a member no more; go on watching. */
  async leave() {
    this.isIn = false;
    this.#state = undefined;
    await this.host.ask(this);
  }

  /** Leave, and watch no more. */
  async close() {
    this.host.ended();
    await this.leave();
  }

  /** What the server is asked for. @internal */
  get wish() {
    this.#told = this.isIn ? true : this.#wasIn ? false : undefined;
    this.#wasIn ||= this.isIn;
    return { channel: this.channel, enter: this.#told, state: this.isIn ? this.#state : undefined };
  }

  /** The members are being asked for. @internal */
  expect() {
    this.#early ??= [];
  }

  /** They came. @internal @param {import("./wire.js").PresenceReply | undefined} reply @param {boolean} isWatched */
  know(reply, isWatched) {
    if (this.#told === false) this.#wasIn = false;
    const early = this.#early ?? [];
    this.#early = this.asking = undefined;
    if (!reply || !isWatched) return;
    const before = this.members;
    this.place = new Place();
    this.place.at(reply.cursor);
    this.members = new Map((reply.members ?? []).map((member) => [member.client, member]));
    for (const member of before.values()) if (!this.members.has(member.client)) this.emit("leave", member);
    for (const member of this.members.values()) {
      const known = before.get(member.client);
      if (!known) this.emit("join", member);
      else if (JSON.stringify(known) !== JSON.stringify(member)) this.emit("update", member);
    }
    this.#count(reply);
    this.emit("members", this.members);
    for (const [push, epoch] of early) this.take(push, epoch);
  }

  /** It cannot be known, or not be entered. @internal @param {import("./errors.js").TellwireError} error */
  fail(error) {
    this.#early = this.asking = undefined;
    if (error.code === "disconnected" || error.code === "timeout") return; // asked again with the next connection
    this.place = new Place();
    this.emit("error", error);
  }

  /** @internal @param {import("./wire.js").PresencePush} push @param {string} epoch */
  take(push, epoch) {
    if (this.#early) return void this.#early.push([push, epoch]);
    if (push.seq !== undefined && !this.place.take(epoch, push.seq)) return;
    const { type, member } = push;
    if (type === "count") {
      // Too many to name from now on.
      this.members = new Map();
      return this.#count({ clients: push.clients ?? 0, users: push.users ?? 0 });
    }
    if (!member) return;
    const has = this.members.has(member.client);
    if (type === "leave") this.members.delete(member.client);
    else this.members.set(member.client, member);
    if (type === "leave" && !has) return;
    this.emit(type === "leave" ? "leave" : has ? "update" : "join", member);
    // Who has no name is counted as one of their own.
    const users = new Set([...this.members.values()].map(({ user, client }) => (user === undefined ? [client] : user)));
    this.#count({ clients: this.members.size, users: users.size });
    this.emit("members", this.members);
  }

  /** @param {Count} count */
  #count({ clients, users }) {
    if (clients === this.clients && users === this.users) return;
    this.clients = clients;
    this.users = users;
    this.emit("count", { clients, users });
  }
}
