import { Emitter } from "./emitter.js";

/**
 * @typedef {import("./wire.js").Member} Member
 * @typedef {{clients: number, users: number}} Count
 *
 * @typedef {object} PresenceEvents
 * @property {Member} join
 * @property {Member} update
 * @property {Member} leave
 * @property {Map<string, Member>} members Who is there has changed.
 * @property {Count} count
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
  /** @type {any} */
  state = undefined;
  #epoch = "";
  /** Up to here the members are known. */
  #seq = -1;
  /** What came while the members were asked for. @type {import("./wire.js").PresencePush[] | undefined} */
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

  /** Become a member, or say something new of oneself. @param {any} [state] */
  async enter(state) {
    this.isIn = true;
    this.state = state;
    await this.host.ask(this);
  }

  /** Be a member no more; go on watching. */
  async leave() {
    this.isIn = false;
    this.state = undefined;
    await this.host.ask(this);
  }

  /** Leave, and watch no more. */
  async close() {
    this.host.ended();
    if (this.isIn) await this.leave();
  }

  /** The members are being asked for. @internal */
  expect() {
    this.#early ??= [];
  }

  /** They came. @internal @param {import("./wire.js").PresenceReply} reply */
  know(reply) {
    const [epoch = "", seq] = (reply.cursor ?? "").split(".");
    const before = this.members;
    this.#epoch = epoch;
    this.#seq = seq === undefined ? -1 : Number(seq);
    this.members = new Map((reply.members ?? []).map((member) => [member.client, member]));
    this.#count(reply);
    for (const member of before.values()) if (!this.members.has(member.client)) this.emit("leave", member);
    for (const member of this.members.values()) {
      const known = before.get(member.client);
      if (!known) this.emit("join", member);
      else if (JSON.stringify(known) !== JSON.stringify(member)) this.emit("update", member);
    }
    this.emit("members", this.members);
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const push of early) this.take(push);
  }

  /** @internal @param {import("./wire.js").PresencePush} push */
  take(push) {
    if (this.#early) return void this.#early.push(push);
    if (push.seq !== undefined) {
      if (push.seq <= this.#seq) return;
      this.#seq = push.seq;
    }
    const { type, member } = push;
    if (type === "count") return this.#count({ clients: push.clients ?? 0, users: push.users ?? 0 });
    if (!member) return;
    const has = this.members.has(member.client);
    if (type === "leave") this.members.delete(member.client);
    else this.members.set(member.client, member);
    if (type === "leave" && !has) return;
    const users = new Set([...this.members.values()].map(({ user, client }) => user ?? client)).size;
    this.emit(type === "leave" ? "leave" : has ? "update" : "join", member);
    this.#count({ clients: this.members.size, users });
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
