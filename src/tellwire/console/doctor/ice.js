import { ask } from "../lanes/wire.js";
import { pause, within } from "./publishing.js";

/**
 * Whether UDP gets out of here, and whether a relay (TURN) works: what this browser finds with the server's own list of
 * STUN and TURN servers (spec/protocol.md, section 8.9). Addresses are looked at and forgotten: nobody is told them.
 *
 * @typedef {object} Ice
 * @property {boolean} hasStun Whether the server names STUN servers.
 * @property {boolean} hasTurn Whether it names TURN servers.
 * @property {boolean} asksUdp Whether any of them is asked over UDP.
 * @property {string[]} kinds Of the candidates that were found: host, srflx, relay, with the protocol to the relay.
 * @property {number} [relay_ms] How long two connections took to find each other through the relay.
 * @property {string[]} errors What the servers answered that did not do.
 * @property {boolean} isRefused Whether one of them does not take the credentials.
 *
 * @typedef {{ urls: string | string[], username?: string, credential?: string }} IceServer
 */

const GATHER_MS = 6000;
const RELAY_MS = 10_000;

const REFUSED = "refused the credentials";

/** STUN's and TURN's own codes, and the browser's 701 (RFC 8656, section 19; WebRTC, section 4.8.1.3). */
const CODES = new Map([
  [401, REFUSED],
  [403, "forbids it"],
  [437, "mixed up its allocations"],
  [486, "gives this user no more"],
  [508, "has no room left"],
  [701, "cannot be reached"],
]);

/** @returns {Promise<IceServer[] | undefined>} Undefined where the server has no such list. */
export async function iceServers() {
  try {
    return (await ask("v1/ice-servers")).ice_servers;
  } catch {
    return undefined;
  }
}

/** @param {IceServer[]} servers @param {RegExp} scheme */
function names(servers, scheme) {
  return servers.some(({ urls }) => [urls].flat().some((url) => scheme.test(url)));
}

/** @param {RTCPeerConnection} peer */
function gathered(peer) {
  return new Promise((resolve) => {
    const look = () => peer.iceGatheringState === "complete" && resolve(undefined);
    peer.addEventListener("icegatheringstatechange", look);
    look();
  });
}

/** @param {IceServer[]} servers @returns {Promise<Ice>} */
export async function examineIce(servers) {
  const found = { kinds: new Set(), errors: new Set() };
  const peer = new RTCPeerConnection({ iceServers: servers });
  try {
    peer.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) return;
      const { type, protocol, relayProtocol } = /** @type {any} */ (candidate);
      found.kinds.add(type === "relay" ? `relay over ${relayProtocol ?? protocol}` : `${type} over ${protocol}`);
    };
    peer.onicecandidateerror = ({ url, errorCode }) =>
      found.errors.add(`${url.split("?")[0]} ${CODES.get(errorCode) ?? `answered ${errorCode}`}`);
    peer.createDataChannel("doctor");
    await peer.setLocalDescription();
    await Promise.race([gathered(peer), pause(GATHER_MS)]);
  } finally {
    peer.close();
  }
  const kinds = [...found.kinds].sort();
  const hasRelay = kinds.some((kind) => kind.startsWith("relay"));
  return {
    hasStun: names(servers, /^stuns?:/),
    hasTurn: names(servers, /^turns?:/),
    asksUdp: names(servers, /^(stun:|turn:(?!.*[?&]transport=tcp))/),
    kinds,
    relay_ms: hasRelay ? await relayed(servers) : undefined,
    errors: [...found.errors],
    isRefused: [...found.errors].some((error) => error.endsWith(REFUSED)),
  };
}

/**
 * Let two connections of this page find each other through the relay alone, and say something over it.
 * @param {IceServer[]} servers @returns {Promise<number | undefined>} Milliseconds; undefined where it did not work.
 */
async function relayed(servers) {
  const began = performance.now();
  const [one, other] = [0, 1].map(() => new RTCPeerConnection({ iceServers: servers, iceTransportPolicy: "relay" }));
  try {
    one.onicecandidate = ({ candidate }) => candidate && void other.addIceCandidate(candidate).catch(() => {});
    other.onicecandidate = ({ candidate }) => candidate && void one.addIceCandidate(candidate).catch(() => {});
    const channel = one.createDataChannel("doctor");
    const heard = new Promise((resolve) => {
      other.ondatachannel = (event) => (event.channel.onmessage = resolve);
      channel.onopen = () => channel.send("through the relay");
    });
    await one.setLocalDescription();
    await other.setRemoteDescription(/** @type {RTCSessionDescription} */ (one.localDescription));
    await other.setLocalDescription();
    await one.setRemoteDescription(/** @type {RTCSessionDescription} */ (other.localDescription));
    await within(heard, RELAY_MS, "the relay let nothing through");
    return performance.now() - began;
  } catch {
    return undefined;
  } finally {
    one.close();
    other.close();
  }
}
