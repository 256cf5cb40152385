/**
 * What peers tell each other about their connection.
 * @typedef {object} Signal
 * @property {{type: RTCSdpType, sdp: string}} [description]
 * @property {RTCIceCandidateInit | null} [candidate]
 * @property {Record<string, string>} [streams] What the sender's streams are, by their id: `camera`, `screen`.
 */

/** Candidates that may come before the description they belong to. */
const EARLY_MAX = 64;
/** Sections of a description: a channel for data, and a few tracks each way. */
const SECTIONS_MAX = 32;

/**
 * Offers and answers between two, either of whom may want something new at any time. That is perfect negotiation (W3C
 * WebRTC 1.0, section 10.7), but that the first offer is for one of them alone, whom the server names.
 */
export class Negotiation {
  #isMakingOffer = false;
  #isIgnoring = false;
  #isWanted = false;
  #mayOffer;
  #hasRemote = false;
  /** @type {(RTCIceCandidateInit | null)[]} */
  #early = [];

  /**
   * @param {RTCPeerConnection} pc
   * @param {{isPolite: boolean, isCaller: boolean, send: (signal: Signal) => void, failed: (error: unknown) => void,
   *   yield_: (signal: Signal) => Promise<void>}} how `yield_` takes a first offer with a new connection.
   */
  constructor(pc, { isPolite, isCaller, send, failed, yield_ }) {
    this.pc = pc;
    this.isPolite = isPolite;
    this.yield_ = yield_;
    this.send = send;
    this.failed = failed;
    this.#mayOffer = isCaller;
    pc.onnegotiationneeded = () => {
      this.#isWanted = true;
      void this.#offer();
    };
    // Candidates go as they are found; nobody waits for all of them.
    pc.onicecandidate = ({ candidate }) => candidate && send({ candidate: candidate.toJSON() });
  }

  /** Offer although the other was named: it is silent. */
  permit() {
    if (this.#mayOffer) return;
    this.#mayOffer = true;
    if (this.#isWanted) void this.#offer();
  }

  async #offer() {
    if (!this.#mayOffer || this.pc.signalingState === "closed") return;
    this.#isWanted = false;
    try {
      this.#isMakingOffer = true;
      await this.pc.setLocalDescription();
      this.#say();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#isMakingOffer = false;
    }
  }

  #say() {
    const { localDescription } = this.pc;
    if (localDescription) this.send({ description: { type: localDescription.type, sdp: localDescription.sdp } });
  }

  /** Take what the other said; the calls have to be one after the other. @param {Signal} signal */
  async take({ description, candidate }) {
    const { pc } = this;
    if (pc.signalingState === "closed") return;
    try {
      if (description) {
        if (description.sdp.split("\nm=").length > SECTIONS_MAX) throw new Error("a description has too many sections");
        const collides = description.type === "offer" && (this.#isMakingOffer || pc.signalingState !== "stable");
        this.#isIgnoring = !this.isPolite && collides;
        if (this.#isIgnoring) return;
        // Chromium (156) does not gather anew where its first offer was rolled back: the connection stays "new" for ever.
        if (collides && !this.#hasRemote) return await this.yield_({ description });
        this.#mayOffer = true;
        await pc.setRemoteDescription(description);
        this.#hasRemote = true;
        for (const early of this.#early.splice(0)) await this.#add(early);
        if (description.type === "offer") {
          await pc.setLocalDescription();
          this.#say();
        }
      } else if (candidate !== undefined) {
        if (this.#hasRemote) await this.#add(candidate);
        else if (!this.#isIgnoring && this.#early.length < EARLY_MAX) this.#early.push(candidate);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** @param {RTCIceCandidateInit | null} candidate */
  async #add(candidate) {
    try {
      await this.pc.addIceCandidate(candidate);
    } catch (error) {
      // Of an offer that was not taken, or of what was there before a restart; others will come.
      if (!this.#isIgnoring && !this.#hasRemote) throw error;
    }
  }

  /** @param {unknown} error */
  #fail(error) {
    if (this.pc.signalingState !== "closed") this.failed(error);
  }
}
