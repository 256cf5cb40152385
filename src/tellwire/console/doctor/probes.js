import { reason } from "../elements.js";
import { credentials, fields } from "../lanes/credentials.js";
import { Refused, address, ask, check } from "../lanes/wire.js";
import { Events, OPEN_MS, inTime, pause, tooLate, within } from "./publishing.js";

/**
 * What is tried from here, one after the other. Each probe opens one transport, has events published to it, closes it,
 * and tells what it has seen.
 *
 * @typedef {object} Seen
 * @property {boolean} isOpen
 * @property {number} [open_ms] From the first word to where messages can come.
 * @property {import("./arrivals.js").Sent[]} sent
 * @property {string} [why] What was wrong, where something was.
 * @property {string} [code] The server's own, where it was the server who refused.
 * @property {number} [status] Of the answer, where one came that is not the server's own.
 * @property {boolean} [isLate] Whether it is a stream that is not open because nothing came in time.
 * @property {string} [unpublished] What was wrong with publishing, where that did not go on.
 *
 * @typedef {object} Run
 * @property {string} channel
 * @property {string} cursor
 * @property {boolean} mayPublish
 * @property {number} [patience_ms] How long opening may take; left out, as long as the clients have.
 */

/** How long a long poll may be held. */
const WAIT_S = 20;

/** How long the server is given to have the question, so that it is held when something is published. */
const SETTLE_MS = 300;

/**
 * Open a transport and have events sent to it.
 * @param {Run} run @param {(events: Events) => Promise<() => void>} open Resolves with what closes it.
 * @param {{ settle_ms?: number, isStream?: boolean, late?: string }} [how] How long the server is given before something
 *   is published, whether it is an answer that something on the way may hold back, and what it is called when it is late.
 * @returns {Promise<Seen>}
 */
async function examine(run, open, { settle_ms = 0, isStream = false, late } = {}) {
  const { patience_ms = OPEN_MS } = run;
  const events = new Events(run.channel);
  const began = performance.now();
  /** @type {Promise<() => void> | undefined} */
  let opening;
  try {
    opening = open(events);
    await within(opening, patience_ms, late ?? tooLate(patience_ms));
    const open_ms = performance.now() - began;
    await pause(settle_ms);
    return { isOpen: true, open_ms, ...(await published(run, events)) };
  } catch (error) {
    return { isOpen: false, sent: [], isLate: isStream && performance.now() - began >= patience_ms, ...wrongOf(error) };
  } finally {
    void opening?.then((close) => close()).catch(() => {});
  }
}

/** What is wrong with publishing says nothing of the transport that reads. @param {Run} run @param {Events} events */
async function published(run, events) {
  if (!run.mayPublish) return { sent: [] };
  try {
    await events.run();
    return { sent: events.sent };
  } catch (error) {
    return { sent: events.sent, unpublished: reason(error) };
  }
}

/** @param {unknown} error */
export function wrongOf(error) {
  if (!(error instanceof Refused)) return { why: reason(error) };
  return error.code ? { why: error.message, code: error.code } : { why: error.message, status: error.status };
}

/** @param {string} channel @param {string} cursor @param {{ wait?: number, signal?: AbortSignal }} [options] */
export function read(channel, cursor, { wait = 0, signal } = {}) {
  return ask("v1/messages", { channel, since: cursor, wait: String(wait), limit: "100" }, signal);
}

/** Ask once, and once more for what was published in between. @param {Run} run @returns {Promise<Seen>} */
export async function probePolling(run) {
  const events = new Events(run.channel);
  const began = performance.now();
  try {
    const page = await inTime((signal) => read(run.channel, run.cursor, { signal }));
    const open_ms = performance.now() - began;
    if (run.mayPublish) {
      await events.publish();
      const { messages } = await inTime((signal) => read(run.channel, page.cursor, { signal }));
      for (const { data } of messages) events.came(data);
    }
    return { isOpen: true, open_ms, sent: events.sent };
  } catch (error) {
    return { isOpen: false, sent: [], ...wrongOf(error) };
  }
}

/** Ask, be held, and be answered by an event; each event is a question of its own. @param {Run} run */
export function probeLongPolling(run) {
  return examine(run, async (events) => {
    const end = new AbortController();
    let { cursor } = await inTime((signal) => read(run.channel, run.cursor, { signal }));
    const loop = async () => {
      while (!end.signal.aborted) {
        const page = await read(run.channel, cursor, { wait: run.mayPublish ? WAIT_S : 1, signal: end.signal });
        for (const { data } of page.messages) events.came(data);
        cursor = page.cursor;
      }
    };
    void loop().catch(() => {}); // what does not come says it all
    return () => end.abort();
  }, { settle_ms: SETTLE_MS });
}

/** @param {Run} run */
export function probeEvents(run) {
  /** @param {Events} events @returns {Promise<() => void>} */
  const open = (events) => {
    const { token } = credentials;
    const query = { channel: run.channel, since: run.cursor, ...(token ? { token } : {}) };
    const source = new EventSource(address("v1/events", query));
    return new Promise((resolve, reject) => {
      const close = () => source.close();
      source.onmessage = ({ data }) => events.came(JSON.parse(data));
      source.onopen = () => resolve(close);
      source.onerror = () => {
        if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself, as long as there is time
        reject(new Error("the answer was no stream of events"));
      };
      setTimeout(() => source.readyState === EventSource.CONNECTING && close(), OPEN_MS);
    });
  };
  return examine(run, open, { isStream: true });
}

/** @param {Run} run */
export function probeLines(run) {
  /** @param {Events} events */
  const open = async (events) => {
    const end = new AbortController();
    setTimeout(() => isOpen || end.abort(), OPEN_MS);
    let isOpen = false;
    const url = address("v1/stream", { channel: run.channel, since: run.cursor });
    const response = await fetch(url, { headers: fields(), cache: "no-store", signal: end.signal });
    await check(response);
    if (!response.body) throw new Error("this browser shows no stream while it comes");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    const take = async () => {
      const { value, done } = await reader.read();
      if (done) return false;
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line) events.came(JSON.parse(line).data);
      return true;
    };
    if (!(await take())) throw new Error("the stream ended at once"); // its first line says that it is open
    isOpen = true;
    const loop = async () => {
      while (await take());
    };
    void loop().catch(() => {});
    return () => end.abort();
  };
  return examine(run, open, { isStream: true });
}

/** @param {Run} run */
export function probeWebSocket(run) {
  return examine(run, (events) => {
    const url = address("v1/ws");
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, "tellwire.v1.json");
    const close = () => socket.close();
    setTimeout(() => socket.readyState === WebSocket.CONNECTING && close(), OPEN_MS);
    return new Promise((resolve, reject) => {
      socket.onopen = () => {
        const { token, session } = credentials;
        socket.send(JSON.stringify({ type: "connect", ref: 1, session, ...(token ? { token } : {}) }));
        socket.send(JSON.stringify({ type: "subscribe", ref: 2, channel: run.channel, since: run.cursor }));
      };
      socket.onmessage = ({ data }) => {
        const push = JSON.parse(data);
        if (push.type === "subscribed") resolve(close);
        else if (push.type === "message") events.came(push.data);
        else if (push.type === "error") {
          close();
          reject(new Refused(403, push.message, push.code));
        }
      };
      socket.onclose = ({ code, reason }) =>
        reject(new Error(reason || (code === 1006 ? "it was refused on the way, or cut" : `closed with ${code}`)));
    });
  });
}

/**
 * The server's own data channel (spec/protocol.md, section 17), where it has one.
 * @param {Run} run
 */
export function probeDataChannel(run) {
  /** @param {Events} events */
  const open = async (events) => {
    const peer = new RTCPeerConnection();
    setTimeout(() => channel.readyState === "connecting" && peer.close(), OPEN_MS + 1);
    let isOpen = false;
    const channel = peer.createDataChannel("tellwire", { protocol: "tellwire.v1.json" });
    const subscribed = new Promise((resolve, reject) => {
      channel.onopen = () => {
        isOpen = true;
        const { token, session } = credentials;
        channel.send(JSON.stringify({ type: "connect", ref: 1, session, ...(token ? { token } : {}) }));
        channel.send(JSON.stringify({ type: "subscribe", ref: 2, channel: run.channel, since: run.cursor }));
      };
      channel.onmessage = ({ data }) => {
        const push = JSON.parse(data);
        if (push.type === "subscribed") resolve(undefined);
        else if (push.type === "message") events.came(push.data);
        else if (push.type === "error") reject(new Refused(403, push.message, push.code));
      };
      // One that never opened is told so by either, as the browser likes.
      channel.onclose = () => reject(new Error(isOpen ? "it was closed" : "UDP does not get through to the server"));
      peer.onconnectionstatechange = () =>
        peer.connectionState === "failed" && reject(new Error("UDP does not get through to the server"));
    });
    try {
      await peer.setLocalDescription();
      const headers = fields({ "content-type": "application/sdp" });
      const response = await fetch(address("v1/rtc"), { method: "POST", headers, body: peer.localDescription?.sdp });
      await check(response);
      await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
      await subscribed;
    } catch (error) {
      subscribed.catch(() => {});
      peer.close();
      throw error;
    }
    return () => peer.close();
  };
  return examine(run, open, { late: `UDP does not get through to the server, not within ${OPEN_MS / 1000} seconds` });
}
