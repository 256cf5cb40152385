/** A client, a server that fails as it is told to, and a clock that goes as it is told to. */
import { Tellwire } from "../src/tellwire.js";
import { FakeClock } from "./fake-clock.js";
import { FakeServer } from "./fake-server.js";

export const ALL = /** @type {const} */ (["websocket", "sse", "longpoll", "poll"]);

/** @param {readonly import("../src/tellwire.js").TransportName[]} [transports] @param {import("../src/tellwire.js").Options} [options] */
export function world(transports = ALL, options = {}) {
  const clock = new FakeClock();
  const server = new FakeServer(clock);
  const { fetch, WebSocket } = server;
  /** @type {any} */
  const client = new Tellwire("http://fake", { transports: [...transports], fetch, WebSocket, clock, ...options });
  return { clock, server, client };
}

/** Subscribe; return the list to which the data of the messages go. @param {any} client @param {string} channel @param {any} [options] */
export function collect(client, channel, options = {}) {
  /** @type {any[]} */
  const had = [];
  const onMessage = (/** @type {any} */ message) => had.push(message.data);
  client.subscribe(channel, { onMessage, ...options });
  return had;
}
