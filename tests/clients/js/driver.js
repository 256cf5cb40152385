/**
 * A client in a process of its own, told what to do by lines of JSON on standard input: `{"ask", "do", …}`. It answers
 * each with `{"ask", "result"}` or `{"ask", "error"}`, and tells of everything that happens with `{"on", …}`.
 */
import { createInterface } from "node:readline";
import { Tellwire } from "../../../clients/js/src/tellwire.js";

const tell = (/** @type {object} */ what) => process.stdout.write(`${JSON.stringify(what)}\n`);
process.on("unhandledRejection", (error) => tell({ on: "unhandled", error: String(error) }));
process.on("uncaughtException", (error) => tell({ on: "unhandled", error: String(error) }));

/** @type {Tellwire} */
let client;
/** @type {Map<string, any>} */
const rooms = new Map();

/** @param {string} channel */
function room(channel) {
  const known = rooms.get(channel);
  if (known) return known;
  const made = client.presence(channel);
  for (const name of /** @type {const} */ (["join", "update", "leave"])) {
    made.on(name, (member) => tell({ on: name, channel, member }));
  }
  made.on("members", (members) => tell({ on: "members", channel, members: [...members.values()] }));
  made.on("error", ({ code }) => tell({ on: "presence-error", channel, code }));
  rooms.set(channel, made);
  return made;
}

/** What a browser has: here it tells of nothing but `online`. */
const browser = new EventTarget();

/** @type {Record<string, (fields: any) => any>} */
const does = {
  open({ url, tokens, isImpatient, ...options }) {
    // A browser that is online again has the client come back at once, and not wait for longer and longer.
    if (isImpatient) {
      globalThis.addEventListener = browser.addEventListener.bind(browser);
      globalThis.removeEventListener = browser.removeEventListener.bind(browser);
    }
    const token = tokens && (() => (tokens.length > 1 ? tokens.shift() : tokens[0]));
    client = new Tellwire(url, { ...options, ...(token && { token }) });
    client.on("state", (state) => tell({ on: "state", ...state, code: /** @type {any} */ (state).error?.code }));
    client.on("state", ({ state }) => {
      if (isImpatient && state === "disconnected") setTimeout(() => browser.dispatchEvent(new Event("online")), 50);
    });
    client.on("signal", (signal) => tell({ on: "signal", ...signal }));
  },
  async subscribe({ channel, ...options }) {
    const subscription = client.subscribe(channel, {
      ...options,
      onMessage: ({ data, position }) => tell({ on: "message", channel, data, position }),
      onError: ({ code }) => tell({ on: "end", channel, code }),
    });
    subscription.on("gap", (gap) => tell({ on: "gap", channel, gap }));
    await subscription.ready;
    return subscription.cursor;
  },
  publish: ({ channel, data, ...options }) => client.publish(channel, data, options),
  publish_all: ({ channel, list }) => Promise.all(list.map((/** @type {any} */ data) => client.publish(channel, data))),
  history: ({ channel, ...options }) => client.history(channel, options),
  watch: ({ channel }) => void room(channel),
  enter: ({ channel, state }) => room(channel).enter(state),
  leave: ({ channel }) => room(channel).leave(),
  send: ({ channel, to, data, ...options }) => client.send(channel, to, data, options),
  call: ({ method, data, ...options }) => client.call(method, data, options),
  client: () => client.client,
  close: () => client.close(),
};

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const { ask, do: what, ...fields } = JSON.parse(line);
  try {
    tell({ ask, result: (await does[what]?.(fields)) ?? null });
  } catch (error) {
    const { code, message } = /** @type {any} */ (error);
    tell({ ask, error: code ?? "failed", message });
  }
});
lines.on("close", () => process.exit());
