import { asError, told } from "../errors.js";

/** @typedef {import("./lane.js").Lane} Lane */
/**
 * What a reading request wants of presence, for all its channels alike: only one that enters hears what is said to this
 * client alone.
 * @typedef {"enter" | "watch" | undefined} Attendance
 */

/** What comes down is read in lanes, by one kind of request or another; what goes up are requests of their own. */
export class HttpTransport {
  batches = 1;
  /** @type {Map<Attendance, Lane>} */
  #lanes = new Map();
  #isOpen = false;
  #isOver = false;
  /** Ends with the transport. */
  #life = new AbortController();

  /**
   * @param {import("../connection.js").Host} host
   * @param {string} name
   * @param {new (transport: HttpTransport, attendance: Attendance) => Lane} Lane
   */
  constructor(host, name, Lane) {
    this.host = host;
    this.name = name;
    this.Lane = Lane;
  }

  /** @param {string} channel @returns {Attendance} */
  attendanceOf(channel) {
    const room = this.host.rooms.get(channel);
    // Until it is known who is there, nobody can say since when to watch.
    if (!room || room.place.cursor === null) return undefined;
    return room.isIn ? "enter" : "watch";
  }

  /** A member hears only by what enters, also before that is there. @param {Lane} lane */
  readsInbox(lane) {
    return lane.attendance === "enter" || ![...this.host.rooms.values()].some((room) => room.isIn);
  }

  /** Resolves when everything is being read. */
  async open() {
    await Promise.all(this.#need().map((lane) => lane.open()));
    this.#isOpen = true;
    this.sync(); // what was wanted meanwhile
  }

  close() {
    this.#isOver = true;
    this.#life.abort();
    for (const lane of this.#lanes.values()) lane.close();
  }

  /** A lane failed, and so did the transport. @param {import("../errors.js").TellwireError} error */
  fail(error) {
    if (this.#isOver) return;
    this.close();
    if (this.#isOpen) this.host.lost(this, error);
  }

  /** Make the lanes that are missing, and return them; end those that have nothing to do. */
  #need() {
    const channels = [...this.host.readings().keys(), ...this.host.rooms.keys()];
    const needed = new Set(channels.map((channel) => this.attendanceOf(channel)));
    if (needed.size === 0) needed.add(undefined);
    const made = [...needed].filter((attendance) => !this.#lanes.has(attendance));
    for (const [attendance, lane] of this.#lanes) {
      if (needed.has(attendance)) continue;
      this.#lanes.delete(attendance);
      lane.close();
    }
    return made.map((attendance) => {
      const lane = new this.Lane(this, attendance);
      this.#lanes.set(attendance, lane);
      return lane;
    });
  }

  sync() {
    if (this.#isOver) return;
    for (const lane of this.#lanes.values()) lane.sync();
    if (!this.#isOpen) return;
    for (const lane of this.#need()) lane.open().catch((error) => lane.isOpen || lane.isOver || this.fail(asError(error)));
  }

  /** @param {string[]} texts @returns {Promise<import("../outbox.js").Answers>} */
  async publish(texts) {
    const answers = await this.#ask("messages", { body: `[${texts.join()}]` });
    return answers.map((/** @type {any} */ answer) => (answer.error ? told(answer.error) : answer));
  }

  /** @param {Record<string, any> & {type: string}} command @param {number} [timeoutMs] @returns {Promise<any>} */
  request({ type, ...fields }, timeoutMs) {
    return this.#ask(type, { body: JSON.stringify({ session: this.host.session, ...fields }) }, timeoutMs);
  }

  /** @param {string} what @param {{body?: string, query?: import("../http.js").Query}} how */
  #ask(what, how, timeoutMs = this.host.options.requestTimeoutMs) {
    return this.host.http.json(`v1/${what}`, { ...how, signal: this.#life.signal, timeoutMs });
  }

  /** @param {import("../presence.js").Presence} room @param {boolean} isWatched */
  async present(room, isWatched) {
    const { inbox, session } = this.host;
    const { channel, enter, state } = room.wish;
    const look = () => this.#ask("presence", { query: [["channel", channel], ["session", session]] });
    // What is said to this client from its entry on is not to be missed. Others may look, and enter, meanwhile.
    if (enter && inbox.cursor === null) {
      const { cursor } = await look();
      if (inbox.cursor === null) inbox.at(cursor);
    }
    if (enter === undefined) return isWatched ? look() : undefined;
    return this.request({ type: "presence", channel, enter, state });
  }

  /** Something may have happened while nobody looked: ask anew. */
  verify() {
    for (const lane of this.#lanes.values()) lane.verify();
  }
}
