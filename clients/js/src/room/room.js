import { Emitter } from "../emitter.js";
import { TellwireError, asError } from "../errors.js";
import { randomId } from "../storage.js";
import { Files } from "./files.js";
import { Peer } from "./peer.js";

/**
 * @typedef {object} RoomOptions
 * @property {number} [connectMs] A direct or relayed way has to be found within this, else the server carries data and
 *   files; default 10,000.
 * @property {number} [maxPeers] How many others are connected to, those that came first at the beginning; default 8.
 * @property {number} [maxFileBytes] Larger files are refused; default 1 GiB.
 * @property {RTCIceServer[]} [iceServers] In the place of the server's.
 * @property {RTCIceTransportPolicy} [iceTransportPolicy] `relay`: over TURN only.
 * @property {boolean} [direct] False: through the server only; there is no media then.
 *
 * @typedef {object} JoinOptions
 * @property {boolean | MediaTrackConstraints} [audio]
 * @property {boolean | MediaTrackConstraints} [video]
 * @property {boolean | DisplayMediaStreamOptions} [screen]
 * @property {any} [state] What the others see of this page, as `peer.state`.
 *
 * @typedef {{peer: Peer, track: MediaStreamTrack, stream: MediaStream, kind: string}} TrackEvent `kind` is `camera` or
 *   `screen`, or what the other has called it.
 *
 * @typedef {object} RoomEvents
 * @property {Peer} peer Somebody is there; after a reload as somebody new.
 * @property {Peer} peerleft
 * @property {Peer} update A peer's `state` is another.
 * @property {{peer: Peer, path: import("./peer.js").Path}} path How a peer is reached has changed.
 * @property {TrackEvent} track
 * @property {TrackEvent} trackended
 * @property {import("./transfer.js").IncomingFile} file A peer would send one: accept it, or refuse it.
 * @property {{kind: string, stream: MediaStream | undefined}} local What this page sends has changed.
 * @property {TellwireError} error
 */

const EVENT = "rtc";
/** Signals of members of whom it is not known yet that they are there. */
const EARLY_MAX = 64;
const EARLY_MS = 10_000;
/** A peer that is connected, and not in the list: perhaps the server was started again. */
const ABSENT_MS = 10_000;
const INSTANCE_MAX = 64;
/** Connections that are made to one member within so long. */
const BUILDS_MAX = 20;
const BUILDS_MS = 60_000;
const BUILT_MAX = 256;

/** @type {WeakMap<object, Set<string>>} */
const taken = new WeakMap();

/**
 * Everybody in a channel, connected with each other directly where that is possible.
 * @extends {Emitter<RoomEvents>}
 */
export class Room extends Emitter {
  /** The others, by client id. @type {Map<string, Peer>} */
  peers = new Map();
  /** What this page sends, by kind: `camera`, `screen`. @type {Map<string, MediaStream>} */
  local = new Map();
  #client;
  #ask;
  #clock;
  #options;
  /** Of this page, until it is loaded again. */
  #instance = "";
  /** @type {import("../presence.js").Presence | undefined} */
  #presence;
  /** @type {any} */
  #state = null;
  /** @type {(() => void)[]} */
  #listening = [];
  /** @type {{at: number, signal: import("../wire.js").Signal}[]} */
  #early = [];
  /** @type {Map<string, unknown>} */
  #absent = new Map();
  #files;
  /** @type {{servers: RTCIceServer[], until: number}} */
  #ice = { servers: [], until: 0 };
  #isFull = false;
  /** When connections to members were made. @type {Map<string, number[]>} */
  #built = new Map();

  /**
   * @param {import("../client.js").Tellwire} client
   * @param {string} channel
   * @param {RoomOptions} options
   * @param {import("../connection.js").Host} host
   */
  constructor(client, channel, options, { clock, http, options: { requestTimeoutMs: timeoutMs } }) {
    super();
    this.channel = channel;
    this.#client = client;
    this.#clock = clock;
    this.#ask = () => http.json("v1/ice-servers", { timeoutMs });
    this.#options = { connectMs: 10_000, maxPeers: 8, maxFileBytes: 2 ** 30, direct: true, iceTransportPolicy: undefined, ...options };
    this.#files = new Files(clock, this.#options.maxFileBytes, (file) => {
      this.emit("file", file);
      return this.hears("file");
    });
  }

  /** Come in. Media is asked for first, so that it is there when the others are. @param {JoinOptions} [options] */
  async join({ audio = false, video = false, screen = false, state = null } = {}) {
    if (this.#presence) throw new TellwireError("bad_request", `${this.channel} is joined already`);
    const channels = taken.get(this.#client) ?? new Set();
    if (channels.has(this.channel)) throw new TellwireError("bad_request", `${this.channel} is joined by another room of this client`);
    taken.set(this.#client, channels.add(this.channel));
    try {
      if (audio || video) this.share("camera", await navigator.mediaDevices.getUserMedia({ audio, video }));
      if (screen) await this.shareScreen(screen === true ? {} : screen);
      await this.#freshen();
      this.#state = state;
      this.#instance = randomId();
      const presence = this.#client.presence(this.channel);
      this.#presence = presence;
      this.#listening = [
        presence.on("members", () => this.#sync()),
        presence.on("error", (error) => this.emit("error", error)),
        this.#client.on("signal", (signal) => this.#hear(signal)),
        this.#watchPage(),
      ];
      await presence.enter({ [EVENT]: this.#instance, state });
      this.#sync();
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  /** Say something new of this page to the others. @param {any} state */
  async setState(state) {
    this.#state = state;
    await this.#presence?.enter({ [EVENT]: this.#instance, state });
  }

  /** Go. What was captured for this room is captured no more. */
  async leave() {
    const presence = this.#presence;
    this.#end();
    await presence?.close();
  }

  #end() {
    this.#presence = undefined;
    for (const off of this.#listening.splice(0)) off();
    for (const kind of [...this.local.keys()]) this.unshare(kind);
    this.#files.close();
    for (const peer of [...this.peers.values()]) this.#remove(peer);
    for (const timer of this.#absent.values()) this.#clock.clearTimeout(timer);
    this.#absent.clear();
    this.#early = [];
    taken.get(this.#client)?.delete(this.channel);
  }

  // Media

  /** Listen to tracks, those that are there included. @param {(event: TrackEvent) => void} listener */
  onTrack(listener) {
    for (const peer of this.peers.values()) for (const local of peer.tracks.values()) listener({ peer, ...local });
    return this.on("track", listener);
  }

  /** Send the tracks of a stream to everybody, in place of what was sent as this kind. @param {string} kind @param {MediaStream} stream */
  share(kind, stream) {
    this.unshare(kind);
    this.local.set(kind, stream);
    for (const track of stream.getTracks()) {
      for (const peer of this.peers.values()) peer.addTrack({ track, stream, kind });
      // As when the user ends it in the browser's own bar.
      track.addEventListener("ended", () => this.local.get(kind) === stream && this.unshare(kind));
    }
    this.emit("local", { kind, stream });
  }

  /** Send it no more, and capture it no more. @param {string} kind */
  unshare(kind) {
    const stream = this.local.get(kind);
    if (!stream) return;
    this.local.delete(kind);
    for (const track of stream.getTracks()) {
      for (const peer of this.peers.values()) peer.removeTrack(track);
      track.stop();
    }
    this.emit("local", { kind, stream: undefined });
  }

  /** Ask the user which screen or window, and send it. @param {DisplayMediaStreamOptions} [options] */
  async shareScreen(options = {}) {
    this.share("screen", await navigator.mediaDevices.getDisplayMedia(options));
  }

  stopScreen() {
    this.unshare("screen");
  }

  // Data and files

  /**
   * Messages to and from one peer: all of them in order, or with `unreliable` those that make it at once.
   * @param {Peer | string} peer
   * @param {{reliable?: boolean, unreliable?: boolean}} [options]
   */
  dataChannel(peer, { reliable, unreliable = reliable === false } = {}) {
    return this.#peer(peer).data({ unreliable });
  }

  /**
   * Send a file to one peer. It goes on after a break, and is right when it is `done`.
   * @param {Peer | string} peer
   * @param {Blob & {name?: string}} file
   * @param {{onProgress?: (progress: import("./transfer.js").Progress) => void, signal?: AbortSignal}} [options]
   */
  sendFile(peer, file, { onProgress, signal } = {}) {
    const sending = this.#files.send(this.#peer(peer), file);
    if (onProgress) sending.on("progress", onProgress);
    if (signal?.aborted) sending.cancel();
    signal?.addEventListener("abort", () => sending.cancel(), { once: true });
    return sending;
  }

  /** @param {Peer | string} which */
  #peer(which) {
    const peer = this.peers.get(typeof which === "string" ? which : which.client);
    if (!peer) throw new TellwireError("not_found", `${typeof which === "string" ? which : which.client} is not in ${this.channel}`);
    return peer;
  }

  // Who is there

  #sync() {
    const presence = this.#presence;
    const own = presence?.members.get(this.#client.client ?? "");
    if (!presence || !own || !this.#instance) return;
    const ours = own.state?.[EVENT];
    if (ours !== this.#instance) {
      // A tab that was duplicated has the same session: the newer one is the client now.
      if (typeof ours !== "string" || !presence.isIn) return;
      this.#end();
      this.emit("error", new TellwireError("closed", "another page of this session has joined the room"));
      return;
    }
    /** @param {import("../wire.js").Member} member */
    const order = (member) => /** @type {const} */ ([member.entered ?? 0, member.client]);
    const isFirst = (/** @type {import("../wire.js").Member} */ a, /** @type {import("../wire.js").Member} */ b) => {
      const [[at, client], [thenAt, thenClient]] = [order(a), order(b)];
      return at < thenAt || (at === thenAt && client < thenClient);
    };
    const there = [...presence.members.values()].filter((member) => {
      const instance = member.state?.[EVENT];
      return member.client !== own.client && typeof instance === "string" && instance.length <= INSTANCE_MAX;
    });
    const wanted = there.sort((a, b) => (isFirst(a, b) ? -1 : 1)).slice(0, this.#options.maxPeers);
    if (wanted.length < there.length && !this.#isFull) {
      this.emit("error", new TellwireError("too_many_peers", `of ${there.length} others only ${wanted.length} are connected to`));
    }
    this.#isFull = wanted.length < there.length;
    for (const member of wanted) this.#find(member, isFirst(member, own));
    const names = new Set(wanted.map(({ client }) => client));
    for (const peer of [...this.peers.values()]) if (!names.has(peer.client)) this.#missed(peer);
    for (const { signal, at } of this.#early.splice(0)) this.#hear(signal, at);
  }

  /** @param {import("../wire.js").Member} member @param {boolean} wasFirst */
  #find({ client, user, info, state }, wasFirst) {
    this.#clock.clearTimeout(this.#absent.get(client));
    this.#absent.delete(client);
    const instance = state[EVENT];
    let peer = this.peers.get(client);
    if (peer && peer.instance !== instance) {
      this.#remove(peer);
      peer = undefined;
    }
    if (peer) {
      const isNew = JSON.stringify(peer.state) !== JSON.stringify(state.state);
      Object.assign(peer, { user, info, state: state.state });
      if (isNew) this.emit("update", peer);
      return;
    }
    if (!this.#mayBuild(client)) return;
    // The one who came later calls: for it the other is there already.
    const made = new Peer(this.#host, { client, instance, isCaller: wasFirst });
    Object.assign(made, { user, info, state: state.state });
    this.peers.set(client, made);
    made.on("path", (path) => {
      this.emit("path", { peer: made, path });
      if (path === "connecting" && this.#absent.has(client)) this.#remove(made);
    });
    made.on("track", (local) => this.emit("track", { peer: made, ...local }));
    made.on("trackended", (local) => this.emit("trackended", { peer: made, ...local }));
    made.on("error", (error) => this.emit("error", error));
    this.emit("peer", made);
    this.#files.attach(made);
  }

  /** @returns {import("./peer.js").Host} */
  get #host() {
    const { connectMs, iceTransportPolicy, direct } = this.#options;
    return {
      clock: this.#clock,
      instance: this.#instance,
      options: { connectMs, iceTransportPolicy, direct },
      send: (client, data, id) => this.#client.send(this.channel, client, data, { event: EVENT, id }),
      iceServers: () => this.#ice.servers,
      freshIceServers: () => this.#freshen(),
      local: () => [...this.local].flatMap(([kind, stream]) => stream.getTracks().map((track) => ({ track, stream, kind }))),
      files: (peer, data) => this.#files.take(peer, data),
      mayBuild: (client) => this.#mayBuild(client),
    };
  }

  /** A member that would have page after page, or connection after connection, has to wait. @param {string} client */
  #mayBuild(client) {
    const now = this.#clock.now();
    const times = (this.#built.get(client) ?? []).filter((at) => now - at < BUILDS_MS);
    const may = times.length < BUILDS_MAX;
    this.#built.delete(client);
    this.#built.set(client, may ? [...times, now] : times);
    for (const oldest of this.#built.keys()) if (this.#built.size > BUILT_MAX) this.#built.delete(oldest);
    return may;
  }

  /** It is not in the list any more. @param {Peer} peer */
  #missed(peer) {
    if (!peer.isOpen) return this.#remove(peer);
    if (this.#absent.has(peer.client)) return;
    const gone = () => {
      this.#absent.delete(peer.client);
      if (this.peers.get(peer.client) === peer) this.#remove(peer);
    };
    this.#absent.set(peer.client, this.#clock.setTimeout(gone, ABSENT_MS));
  }

  /** @param {Peer} peer */
  #remove(peer) {
    this.#clock.clearTimeout(this.#absent.get(peer.client));
    this.#absent.delete(peer.client);
    this.peers.delete(peer.client);
    this.#files.detach(peer);
    peer.close();
    this.emit("peerleft", peer);
  }

  /** @param {import("../wire.js").Signal} signal @param {number} [at] When it came. */
  #hear(signal, at = this.#clock.now()) {
    const { channel, from, event, data } = signal;
    if (channel !== this.channel || event !== EVENT || data?.to !== this.#instance) return;
    const peer = this.peers.get(from);
    if (peer && peer.instance === data.from) return peer.take(data);
    // It is here before the news that it came: that is on its way over another log.
    const now = this.#clock.now();
    this.#early = [...this.#early, { at, signal }].filter((each) => now - each.at < EARLY_MS).slice(-EARLY_MAX);
  }

  async #freshen() {
    const given = this.#options.iceServers;
    if (given) return (this.#ice.servers = given);
    if (this.#clock.now() < this.#ice.until) return this.#ice.servers;
    try {
      const { ice_servers, expires_in_ms } = await this.#ask();
      // Half of their time: what begins with them has to end its beginning, too.
      this.#ice = { servers: ice_servers, until: this.#clock.now() + (expires_in_ms ?? 600_000) / 2 };
    } catch (error) {
      this.emit("error", asError(error)); // two in one network need none
    }
    return this.#ice.servers;
  }

  /** @returns {() => void} */
  #watchPage() {
    const { addEventListener, removeEventListener } = globalThis;
    if (typeof addEventListener !== "function" || !globalThis.document) return () => {};
    // The others would else wait half a minute for what is gone. A page that is kept for the way back comes in anew.
    const hide = () => {
      for (const peer of [...this.peers.values()]) this.#remove(peer);
      this.#instance = "";
    };
    const show = (/** @type {PageTransitionEvent} */ { persisted }) => {
      if (!persisted || !this.#presence) return;
      this.#instance = randomId();
      this.setState(this.#state).catch((error) => this.emit("error", asError(error)));
    };
    addEventListener("pagehide", hide);
    addEventListener("pageshow", show);
    return () => {
      removeEventListener("pagehide", hide);
      removeEventListener("pageshow", show);
    };
  }
}
