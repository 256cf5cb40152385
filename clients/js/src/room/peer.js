import { Emitter } from "../emitter.js";
import { TellwireError } from "../errors.js";
import { ReliableData, UnreliableData } from "./data.js";
import { Mail, fromBase64 } from "./mail.js";
import { Negotiation } from "./negotiation.js";
import { Recovery } from "./recovery.js";
import { Stream } from "./stream.js";

/**
 * @typedef {"connecting" | "direct" | "relay" | "channel"} Path How a peer is reached: `channel` is through the server.
 * @typedef {{track: MediaStreamTrack, stream: MediaStream, kind: string}} Local A track that is sent, and what it shows.
 *
 * @typedef {object} PeerEvents
 * @property {Path} path
 * @property {{track: MediaStreamTrack, stream: MediaStream, kind: string}} track
 * @property {{track: MediaStreamTrack, stream: MediaStream, kind: string}} trackended
 * @property {TellwireError} error
 *
 * @typedef {object} Host What a peer needs of its room.
 * @property {import("../clock.js").Clock} clock
 * @property {string} instance Of this page in the room.
 * @property {{connectMs: number, iceTransportPolicy: RTCIceTransportPolicy | undefined, direct: boolean}} options
 * @property {(client: string, data: any, id: string) => Promise<unknown>} send
 * @property {() => RTCIceServer[]} iceServers
 * @property {() => Promise<RTCIceServer[]>} freshIceServers
 * @property {() => Local[]} local
 * @property {(peer: Peer, data: string | Uint8Array<ArrayBuffer>) => void} files
 * @property {(client: string) => boolean} mayBuild Whether a member has not had too many connections made just now.
 */

const FILES = 0;
const RELIABLE = 1;
const UNRELIABLE = 2;
/** The first may be silent for so long; then the other calls. */
const SILENCE_MS = 4000;
const DIRECT_MAX_BYTES = 1024 * 1024;
const LOW_BYTES = 256 * 1024;
const INCOMING_MAX = 256;
const STREAMS_MAX = 16;

/**
 * Another page in the room, and the connection to it.
 * @extends {Emitter<PeerEvents>}
 */
export class Peer extends Emitter {
  /** @type {Path} */
  path = "connecting";
  /** @type {any} What the member says of itself. */
  state = undefined;
  /** @type {string | undefined} */
  user = undefined;
  /** @type {any} */
  info = undefined;
  /** What it sends, by track. @type {Map<MediaStreamTrack, Local>} */
  tracks = new Map();
  /** @internal @type {RTCPeerConnection | undefined} */
  pc;
  /** @type {RTCDataChannel[]} */
  #channels = [];
  /** @type {Negotiation | undefined} */
  #negotiation;
  /** Connections to this page so far, counted by both. */
  #generation = 0;
  #incoming = Promise.resolve();
  #waiting = 0;
  #isClosed = false;
  #recovery;
  #mail;
  #files;
  #reliable;
  #unreliable;
  /** @type {Record<string, string>} */
  #kinds = {};
  /** @type {Map<MediaStreamTrack, RTCRtpTransceiver>} */
  #senders = new Map();
  /** @type {unknown} */
  #silence;
  /** What the streams are written to. @type {RTCPeerConnection | "channel" | undefined} */
  #wire;

  /**
   * @param {Host} host
   * @param {{client: string, instance: string, isCaller: boolean}} who
   */
  constructor(host, { client, instance, isCaller }) {
    super();
    this.host = host;
    this.client = client;
    /** @internal */
    this.instance = instance;
    this.isCaller = isCaller;
    /** Both know it, and it stays as it is: who gives way where both offer. */
    this.isPolite = host.instance < instance;
    this.#mail = new Mail({
      clock: host.clock,
      send: (data, id) => host.send(client, data, id),
      head: () => ({ from: host.instance, to: instance, g: this.#generation }),
      lost: (error) => this.emit("error", error),
    });
    this.#mail.onroom = () => this.#pump();
    this.#files = new Stream(FILES, host.clock, (data) => host.files(this, data));
    const reliable = new Stream(RELIABLE, host.clock, (data) => this.#reliable.deliver(data));
    this.#reliable = new ReliableData(reliable);
    this.#unreliable = new UnreliableData(() => this.#unreliableWire());
    this.#recovery = new Recovery(host.clock, {
      deadlineMs: host.options.connectMs,
      isFirst: !this.isPolite, // whatever clocks say of who came first, of the two it is one
      late: () => this.#fall(),
      restart: () => this.#restart(),
      rebuild: () => this.#build(this.#generation + 1, true),
    });
    this.#build(1, isCaller);
  }

  /** @internal */
  get files() {
    return this.#files;
  }

  /**
   * Messages to and from this peer; the same at both ends.
   * @param {{unreliable?: boolean}} [options]
   * @returns {import("./data.js").PeerData}
   */
  data({ unreliable = false } = {}) {
    return unreliable ? this.#unreliable : this.#reliable;
  }

  /** @internal @param {any} mail What came as a direct message, with this peer's and this page's names on it. */
  take(mail) {
    if (Array.isArray(mail.signals)) for (const signal of mail.signals) this.#hear(signal);
    if (Array.isArray(mail.frames)) {
      for (const frame of mail.frames) {
        if (Array.isArray(frame) && typeof frame[1] === "string") this.#takeFrame(frame[0], frame[1]);
      }
    }
  }

  /** @param {unknown} stream @param {string} text */
  #takeFrame(stream, text) {
    try {
      const bytes = fromBase64(text);
      if (stream === UNRELIABLE) this.#unreliable.take(bytes);
      else if (stream === FILES) this.#files.take(bytes);
      else if (stream === RELIABLE) this.#reliable.stream.take(bytes);
    } catch (error) {
      this.emit("error", new TellwireError("malformed", "a peer sent what cannot be read", { cause: error }));
    }
  }

  /** @internal @param {Local} local */
  addTrack(local) {
    const { pc } = this;
    if (!pc || pc.signalingState === "closed") return;
    // One way each: so it can be stopped, and its place be used again, whatever the other sends.
    const direction = /** @type {const} */ ("sendonly");
    this.#senders.set(local.track, pc.addTransceiver(local.track, { direction, streams: [local.stream] }));
  }

  /** @internal @param {MediaStreamTrack} track */
  removeTrack(track) {
    const transceiver = this.#senders.get(track);
    this.#senders.delete(track);
    if (transceiver && this.pc?.signalingState !== "closed") transceiver.stop();
  }

  /** Gone for good. @internal */
  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.host.clock.clearTimeout(this.#silence);
    this.#recovery.close();
    this.#end();
    this.#mail.close();
    this.#files.close();
    this.#reliable.stream.close();
    this.path = "connecting";
  }

  /** Whether it can be spoken to without the server. @internal */
  get isOpen() {
    return this.#channels.length > 0 && this.#channels.every(({ readyState }) => readyState === "open");
  }

  #end() {
    this.#channels = [];
    this.#senders.clear();
    for (const local of this.tracks.values()) this.#trackEnded(local);
    this.pc?.close();
    this.pc = undefined;
    this.#negotiation = undefined;
  }

  /** Begin with a new connection. @param {number} generation @param {boolean} isCaller */
  #build(generation, isCaller) {
    const { host } = this;
    if (this.#isClosed) return;
    this.#end();
    this.#generation = generation;
    this.#lose();
    this.#recovery.begin();
    const { RTCPeerConnection } = globalThis;
    if (!host.options.direct || !RTCPeerConnection) return this.#fall();
    const { iceTransportPolicy } = host.options;
    /** @type {RTCPeerConnection} */
    let pc;
    try {
      pc = new RTCPeerConnection({
        iceServers: host.iceServers(),
        bundlePolicy: "max-bundle",
        ...(iceTransportPolicy ? { iceTransportPolicy } : {}),
      });
    } catch (error) {
      // Too many of them in this browser, or an address that is none.
      const says = error instanceof Error ? error.message : String(error);
      this.emit("error", new TellwireError("unavailable", `no connection can be made: ${says}`, { cause: error }));
      return this.#fall();
    }
    this.pc = pc;
    this.#negotiation = new Negotiation(pc, {
      isPolite: this.isPolite,
      isCaller,
      send: (signal) => this.pc === pc && this.#mail.signal(signal.description ? { ...signal, streams: this.#shown() } : signal),
      yield_: async (signal) => {
        if (this.pc !== pc) return;
        this.#build(this.#generation, false);
        await this.#negotiation?.take(signal);
      },
      failed: (error) => {
        const cause = error instanceof Error ? error.message : String(error);
        this.emit("error", new TellwireError("bad_request", `a peer could not be negotiated with: ${cause}`, { cause: error }));
      },
    });
    pc.ondatachannel = ({ channel }) => channel.close(); // there are three, and both know them
    pc.onconnectionstatechange = () => this.pc === pc && this.#changed(pc.connectionState);
    pc.ontrack = (event) => this.#track(event);
    this.#channels = [FILES, RELIABLE, UNRELIABLE].map((id) => this.#channel(pc, id));
    for (const local of host.local()) this.addTrack(local);
    host.clock.clearTimeout(this.#silence);
    const negotiation = this.#negotiation;
    this.#silence = isCaller ? undefined : host.clock.setTimeout(() => negotiation.permit(), SILENCE_MS);
  }

  /** @param {RTCPeerConnection} pc @param {number} id */
  #channel(pc, id) {
    const loose = id === UNRELIABLE ? { ordered: false, maxRetransmits: 0 } : {};
    const channel = pc.createDataChannel(`tellwire ${id}`, { negotiated: true, id, ...loose });
    channel.binaryType = "arraybuffer";
    channel.bufferedAmountLowThreshold = LOW_BYTES;
    channel.onopen = () => this.#opened(pc);
    channel.onclose = () => {
      if (this.pc !== pc || this.#isClosed) return;
      this.#lose();
      this.#recovery.lost();
    };
    channel.onbufferedamountlow = () => this.#pump();
    channel.onmessage = ({ data }) => {
      if (this.pc !== pc || typeof data === "string") return;
      const frame = new Uint8Array(data);
      if (id === UNRELIABLE) this.#unreliable.take(frame);
      else (id === FILES ? this.#files : this.#reliable.stream).take(frame);
    };
    return channel;
  }

  /** @returns {Record<string, string>} */
  #shown() {
    return Object.fromEntries(this.host.local().map(({ stream, kind }) => [stream.id, kind]));
  }

  /** @param {any} signal */
  #hear(signal) {
    const generation = signal?.g;
    if (!Number.isSafeInteger(generation) || generation < this.#generation || generation > this.#generation + 1000) return;
    if (generation > this.#generation) {
      // The other began anew, and calls.
      if (!this.host.mayBuild(this.client)) return;
      this.#build(generation, false);
    }
    const { description, candidate, streams } = signal;
    if (!this.#negotiation || this.#waiting >= INCOMING_MAX) return;
    if (description && (typeof description.sdp !== "string" || typeof description.type !== "string")) return;
    if (streams && typeof streams === "object") {
      this.#kinds = Object.fromEntries(Object.entries(streams).slice(0, STREAMS_MAX).map(([id, kind]) => [id, String(kind).slice(0, 32)]));
    }
    this.#waiting += 1;
    this.#incoming = this.#incoming.then(async () => {
      this.#waiting -= 1;
      if (generation === this.#generation) await this.#negotiation?.take({ description, candidate });
    });
  }

  /** @param {RTCPeerConnection} pc */
  #opened(pc) {
    if (this.pc === pc && this.isOpen) void this.#connected(pc);
  }

  /** @param {RTCPeerConnectionState} state */
  #changed(state) {
    if (state === "connected" && this.isOpen && this.pc) void this.#connected(this.pc);
    else if (state === "disconnected") this.#recovery.doubted();
    else if (state === "failed") this.#recovery.broken();
  }

  /** There is no direct way any more. */
  #lose() {
    if (this.path === "channel") return;
    this.#use(undefined);
    if (this.path === "connecting") return;
    this.path = "connecting";
    this.emit("path", "connecting");
  }

  /** @param {RTCPeerConnection} pc */
  async #connected(pc) {
    if (pc.connectionState !== "connected") return; // told again when it is
    this.#recovery.recovered();
    this.#use("direct");
    const path = await pathOf(pc);
    if (this.pc !== pc || this.path === path || pc.connectionState !== "connected") return;
    this.path = path;
    this.emit("path", path);
  }

  /** No way was found in time: the server carries it. */
  #fall() {
    if (this.path === "channel" || this.#isClosed) return;
    this.#use("channel");
    this.path = "channel";
    this.emit("path", "channel");
  }

  async #restart() {
    const { pc } = this;
    if (!pc || pc.signalingState === "closed") return;
    // The credentials of the relay may be over by now.
    const iceServers = await this.host.freshIceServers();
    if (this.pc !== pc || this.#isClosed) return;
    const { iceTransportPolicy } = this.host.options;
    pc.setConfiguration({ iceServers, bundlePolicy: "max-bundle", ...(iceTransportPolicy ? { iceTransportPolicy } : {}) });
    pc.restartIce();
  }

  /** @param {"direct" | "channel" | undefined} name */
  #use(name) {
    const wire = name === "direct" ? this.pc : name;
    if (wire === this.#wire) return; // what is on its way there goes on
    this.#wire = wire;
    if (name !== "channel") this.#mail.dropFrames();
    for (const stream of [this.#files, this.#reliable.stream]) stream.use(name && this.#lane(name, stream.number));
  }

  /** @param {"direct" | "channel"} name @param {number} number @returns {import("./stream.js").Lane} */
  #lane(name, number) {
    if (name === "channel") {
      const mail = this.#mail;
      return {
        name,
        windowBytes: 512 * 1024,
        get isWritable() {
          return mail.hasRoom;
        },
        write: (stream, frame) => mail.frame(stream, frame),
      };
    }
    const channel = /** @type {RTCDataChannel} */ (this.#channels[number]);
    return {
      name,
      windowBytes: 4 * DIRECT_MAX_BYTES,
      get isWritable() {
        return channel.readyState === "open" && channel.bufferedAmount < DIRECT_MAX_BYTES;
      },
      write: (_, frame) => {
        if (channel.readyState === "open") channel.send(frame);
      },
    };
  }

  #unreliableWire() {
    const channel = this.#channels[UNRELIABLE];
    const mail = this.#mail;
    if (this.path === "channel") {
      const bufferedAmount = mail.isIdle ? 0 : Infinity;
      return { bufferedAmount, write: (/** @type {Uint8Array<ArrayBuffer>} */ frame) => mail.frame(UNRELIABLE, frame) };
    }
    if (!channel || channel.readyState !== "open") return undefined;
    const { bufferedAmount } = channel;
    return { bufferedAmount, write: (/** @type {Uint8Array<ArrayBuffer>} */ frame) => channel.send(frame) };
  }

  #pump() {
    this.#reliable.stream.pump();
    this.#files.pump();
  }

  /** @param {RTCTrackEvent} event */
  #track({ track, streams }) {
    const stream = streams[0] ?? new MediaStream([track]);
    const local = { track, stream, kind: this.#kinds[stream.id] ?? "camera" };
    this.tracks.set(track, local);
    track.onended = () => this.#trackEnded(local);
    this.emit("track", local);
  }

  /** @param {Local} local */
  #trackEnded(local) {
    if (this.tracks.delete(local.track)) this.emit("trackended", local);
  }
}

/** @param {RTCPeerConnection} pc @returns {Promise<"direct" | "relay">} */
async function pathOf(pc) {
  /** @type {Map<string, any>} */
  const stats = new Map();
  for (const [id, entry] of /** @type {any} */ (await pc.getStats().catch(() => new Map()))) stats.set(id, entry);
  const transport = [...stats.values()].find(({ type }) => type === "transport");
  const pair = stats.get(transport?.selectedCandidatePairId);
  const ends = [stats.get(pair?.localCandidateId), stats.get(pair?.remoteCandidateId)];
  return ends.some((end) => end?.candidateType === "relay") ? "relay" : "direct";
}
