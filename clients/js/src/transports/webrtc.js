import { TellwireError, asError } from "../errors.js";

/** Most bytes of one message on a data channel. */
const PART_MAX_BYTES = 65_536;
/** Most bytes of what comes in parts. */
const WHOLE_MAX_BYTES = 16 * 1024 * 1024;
/** Beyond it, what may be lost is. */
const UNRELIABLE_MAX_BYTES = 64 * 1024;
/** The first byte of a part: of the last one, and of those before it (spec/protocol.md, section 17.4). */
const LAST = 0;
const MORE = 1;

/**
 * Data channels to the server in the shape of a WebSocket, which is what the session needs of them
 * (spec/protocol.md, section 17).
 */
export class DataChannels {
  readyState = 0;
  /** @type {(() => void) | null} */
  onopen = null;
  /** @type {((event: {data: string}) => void) | null} */
  onmessage = null;
  /** @type {((event: {code: number, reason: string}) => void) | null} */
  onclose = null;
  /** @type {(() => void) | null} */
  onerror = null;
  #peer;
  #reliable;
  #unreliable;
  /** What came in parts so far. @type {Uint8Array[]} */
  #parts = [];
  #partBytes = 0;

  /** @param {import("../connection.js").Host} host */
  constructor(host) {
    // The server is where its answer says: nobody else is asked for the way.
    this.#peer = /** @type {RTCPeerConnection} */ (new host.options.RTCPeerConnection({ iceServers: [] }));
    this.#reliable = this.#peer.createDataChannel("tellwire", { protocol: "tellwire.v1.json" });
    this.#unreliable = this.#peer.createDataChannel("tellwire.unreliable", { ordered: false, maxRetransmits: 0 });
    for (const channel of [this.#reliable, this.#unreliable]) {
      channel.binaryType = "arraybuffer";
      channel.onmessage = ({ data }) => this.#take(data);
    }
    this.#reliable.onopen = () => {
      this.readyState = 1;
      this.onopen?.();
    };
    this.#reliable.onclose = () => this.#end("the data channel was closed");
    this.#peer.onconnectionstatechange = () => {
      if (this.#peer.connectionState === "failed") this.#end("there is no path to the server any more");
    };
    this.#open(host).catch((error) => this.#end(asError(error).message, error));
  }

  /** What the server answered to the offer, where it refused. @type {TellwireError | undefined} */
  refusal;

  /** @param {import("../connection.js").Host} host */
  async #open({ http, session, options }) {
    // The candidates of this side are not needed, so that nothing has to be waited for.
    await this.#peer.setLocalDescription(await this.#peer.createOffer());
    const sdp = await http.ask("v1/rtc", {
      query: [["session", session]],
      body: /** @type {RTCSessionDescription} */ (this.#peer.localDescription).sdp,
      headers: { "Content-Type": "application/sdp", Accept: "application/sdp" },
      timeoutMs: options.requestTimeoutMs,
      take: (response) => response.text(),
    });
    if (this.readyState === 0) await this.#peer.setRemoteDescription({ type: "answer", sdp });
  }

  /** @param {string} reason @param {TellwireError} [refusal] */
  #end(reason, refusal) {
    if (this.readyState === 3) return;
    this.refusal = refusal;
    this.close();
    this.onclose?.({ code: 1006, reason });
  }

  close() {
    this.readyState = 3;
    this.#reliable.onclose = this.#reliable.onopen = null;
    this.#reliable.onmessage = this.#unreliable.onmessage = null;
    this.#peer.onconnectionstatechange = null;
    this.#peer.close();
  }

  /** @param {string | ArrayBuffer} data */
  #take(data) {
    if (typeof data === "string") return this.onmessage?.({ data });
    const bytes = new Uint8Array(data);
    const kind = bytes[0];
    this.#partBytes += bytes.length;
    if ((kind !== LAST && kind !== MORE) || this.#partBytes > WHOLE_MAX_BYTES) {
      return this.#end("what came in parts cannot be put together");
    }
    this.#parts.push(bytes.subarray(1));
    if (kind === MORE) return undefined;
    const decoder = new TextDecoder("utf-8", { fatal: true });
    const parts = this.#parts;
    this.#parts = [];
    this.#partBytes = 0;
    try {
      const text = parts.map((part) => decoder.decode(part, { stream: true })).join("") + decoder.decode();
      return this.onmessage?.({ data: text });
    } catch {
      return this.#end("what came in parts was damaged");
    }
  }

  /** @param {string} text */
  send(text) {
    try {
      const bytes = new TextEncoder().encode(text);
      if (bytes.length <= PART_MAX_BYTES) return this.#reliable.send(text);
      for (let at = 0; at < bytes.length; at += PART_MAX_BYTES - 1) {
        const piece = bytes.subarray(at, at + PART_MAX_BYTES - 1);
        const part = new Uint8Array(piece.length + 1);
        part[0] = at + piece.length < bytes.length ? MORE : LAST;
        part.set(piece, 1);
        this.#reliable.send(part);
      }
    } catch (error) {
      this.#end(asError(error).message);
    }
    return undefined;
  }

  /**
   * Send a publish that may be lost beside the others; undefined where it has to go with them.
   * @param {string} fields JSON
   */
  spare(fields) {
    const channel = this.#unreliable;
    if (!JSON.parse(fields).ephemeral || channel.readyState !== "open") return undefined;
    const text = `{"type":"publish",${fields.slice(1)}`;
    if (new TextEncoder().encode(text).length > PART_MAX_BYTES) return undefined;
    if (channel.bufferedAmount < UNRELIABLE_MAX_BYTES) channel.send(text);
    return { position: null, duplicate: false };
  }
}
